"""Jacobi decoding in vLLM, as a plugin: no fork, no patch of its files.

    pip install 'jacobi-forcing[vllm]'
    vllm serve forced/ --speculative-config '{"method": "custom_class",
        "model": "jacobi_forcing.integrations.vllm.proposer.JacobiProposer",
        "num_speculative_tokens": 15}'

vLLM verifies drafts as it does in speculative decoding; the model is its own draft model. What a
proposer is not told is what the model said behind rejected tokens: `hook` passes it on, installed
by the entry point `vllm.general_plugins` or, without touching a class of vLLM, by `workers`.
"""
