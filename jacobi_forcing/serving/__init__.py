"""An OpenAI-compatible server around the decoding loop: one model, many requests.

`engine` runs the loop in a thread of its own, `engine_process` puts that into a process of its own;
`service` answers bodies with either, `app` is the web application around it. May import: config,
errors, logs, models, decoding, data, drawing, integrations.
"""
