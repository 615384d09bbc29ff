"""Other engines with decoders of their own, to be measured beside ours: baselines.

`generate` is transformers', `vllm` is vLLM with and without our plugin; both write a `Transcript`.
"""
