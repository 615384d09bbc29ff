"""Settings: one frozen dataclass per stage, the only place where a default is written.

Command-line flags and recipe files derive from these, and every stage saves its resolved settings
beside its output. Nothing here imports torch or transformers, so that `--help` is quick.
"""

from jacobi_forcing.config.base import (
    DTYPES,
    NOISE_SOURCES,
    DecodingMachine,
    check,
    from_mapping,
    joined,
    needed,
    option,
    refuse_unknown,
    split,
)
from jacobi_forcing.config.data import (
    ENGINES,
    RECORDS,
    SCHEDULES,
    CollectConfig,
    PackConfig,
)
from jacobi_forcing.config.decoding import (
    POOLS,
    STRATEGIES,
    ChatConfig,
    CompareConfig,
    DecodeConfig,
    DecoderConfig,
    DemoConfig,
    EvaluateConfig,
    SamplingConfig,
    TuneConfig,
    TunedConfig,
)
from jacobi_forcing.config.serving import ServeConfig
from jacobi_forcing.config.training import (
    MASKS,
    AverageConfig,
    ForceConfig,
    TrainConfig,
)

__all__ = [
    "DTYPES",
    "ENGINES",
    "MASKS",
    "NOISE_SOURCES",
    "POOLS",
    "RECORDS",
    "SCHEDULES",
    "STRATEGIES",
    "AverageConfig",
    "ChatConfig",
    "CollectConfig",
    "CompareConfig",
    "DecodeConfig",
    "DecoderConfig",
    "DecodingMachine",
    "DemoConfig",
    "EvaluateConfig",
    "ForceConfig",
    "PackConfig",
    "SamplingConfig",
    "ServeConfig",
    "TrainConfig",
    "TuneConfig",
    "TunedConfig",
    "check",
    "from_mapping",
    "joined",
    "needed",
    "option",
    "refuse_unknown",
    "split",
]
