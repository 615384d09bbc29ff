"""An OpenAI-compatible server around the decoding loop: one process, one model, many requests.

`engine` runs the loop in a thread of its own, `service` answers bodies with it, `app` is the web
application around both. May import: config, errors, models, decoding, data, drawing,
integrations.
"""
