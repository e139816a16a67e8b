"""The devices of this machine, and the hardware that multiplies in half precision."""

BF16_INSTRUCTIONS = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX"}
"""Capability of a processor, as torch names it -> its common name."""


def find_device_type(device: str) -> str:
    """Return the type of device that a setting means on this machine: `cuda`, `mps` or `cpu`.

    `cuda` without such a device means the CPU here; `distributed.require_device` refuses it before training.

    Args:
        device: `train.device`.
    """
    import torch  # here, since a recipe can be read without torch unless it asks for `auto`

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return "cuda"
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        return "mps"
    return "cpu"


def detect_bf16_hardware(device: str) -> str:
    """Return the hardware that multiplies in bf16, such as `AVX512-BF16`; empty where bf16 is emulated.

    Emulated products take hundreds of times as long as those in fp32.

    Args:
        device: `train.device`.
    """
    import torch

    kind = find_device_type(device)
    if kind == "cuda":
        # Older GPUs only emulate bf16.
        return torch.cuda.get_device_name() if torch.cuda.is_bf16_supported(including_emulation=False) else ""
    if kind == "mps":  # mixed precision in bf16 is not used on Apple's GPUs
        return ""
    # The environment variable ATEN_CPU_CAPABILITY can lower this capability.
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return ""
    capabilities = torch.cpu.get_capabilities()
    return next((name for key, name in BF16_INSTRUCTIONS.items() if capabilities.get(key)), "")
