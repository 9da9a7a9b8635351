"""Figures of a step: tokens a second, share of the hardware's peak, memory."""

import resource

import torch

# Peak dense BF16 FLOP/s by the name that torch.cuda.get_device_name() gives. Sources: NVIDIA's data sheets, which
# print the double of it "with sparsity" from Ampere on (A100 2020, A30 and A10 2021, L4, L40 and L40S 2023, H100 2023,
# H200 2024, HGX B200 2024, GB200 NVL72 2024), and AMD's data sheets (MI210 and MI250X 2022, MI300X 2023, MI325X 2024).
# A name that is not here has no figure: a guess would be believed.
PEAK_BF16 = {
    "NVIDIA A10": 125e12,
    "NVIDIA A30": 165e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA GH200 480GB": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GB200": 2500e12,
    "AMD Instinct MI210": 181e12,
    "AMD Instinct MI250X": 191.5e12,  # one of its two dies, which torch shows as a device each
    "AMD Instinct MI300X": 1307e12,
    "AMD Instinct MI325X": 1307e12,
}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def mfu(tokens_per_second: float, flops_per_token: float, name: str, devices: int) -> float | None:
    """Share (0 to 1) of the devices' peak that the model's own operations reach; None where the peak is not known."""
    peak = PEAK_BF16.get(name)
    return None if peak is None else tokens_per_second * flops_per_token / (peak * devices)


def memory_bytes(device: torch.device) -> int:
    """The most this process has held: on the GPU by torch's allocator, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
