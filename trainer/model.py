"""A Llama-style decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU. No parallelism in here."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.config import ModelConfig


def rotary_tables(head_dim: int, length: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, each (length, head_dim / 2), fp32."""
    # On the CPU whatever the device: cos and sin differ between devices in the last bit.
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    return angles.cos().to(device), angles.sin().to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (i, i + head_dim / 2) of x, (batch, heads, length, head_dim), by their positions' angles, in fp32."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).type_as(x)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.dim // config.heads
        self.query = nn.Linear(config.dim, self.heads * self.head_dim, bias=False)
        self.key = nn.Linear(config.dim, self.kv_heads * self.head_dim, bias=False)
        self.value = nn.Linear(config.dim, self.kv_heads * self.head_dim, bias=False)
        self.out = nn.Linear(self.heads * self.head_dim, config.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.query(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        k = self.key(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.value(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        y = F.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True, enable_gqa=self.heads != self.kv_heads
        )
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, length, -1))
        return out


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.dim, config.ffn, bias=False)
        self.up = nn.Linear(config.dim, config.ffn, bias=False)
        self.down = nn.Linear(config.ffn, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, eps=1e-5)
        self.attention = Attention(config)
        self.ffn_norm = nn.RMSNorm(config.dim, eps=1e-5)
        self.ffn = FeedForward(config)
        self.recompute = False  # in backward, instead of keeping what is between the block's input and output

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if self.recompute and self.training:
            again: Tensor = checkpoint(self._forward, x, cos, sin, use_reentrant=False)
            return again
        return self._forward(x, cos, sin)

    def _forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class Decoder(nn.Module):
    """Tokens (batch, length) int64 -> logits (batch, length, vocab)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig, length: int) -> None:
        super().__init__()
        self.config, self.length = config, length
        self.embedding = nn.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dim, eps=1e-5)
        # Tied: the embedding's own weight is used. One parameter under two names would come apart in to_empty().
        self.head = None if config.tied else nn.Linear(config.dim, config.vocab, bias=False)
        # Not in the state: they follow from the configuration.
        half = config.dim // config.heads // 2
        self.register_buffer("cos", torch.empty(length, half), persistent=False)
        self.register_buffer("sin", torch.empty(length, half), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length])
        x = self.norm(x)
        logits: Tensor = F.linear(x, self.embedding.weight) if self.head is None else self.head(x)
        return logits

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Fill parameters and tables once the model has left the meta device.

        Every parameter has its own generator, seeded by its name, and is drawn whole before it is sharded: the start
        is the same on every world size.
        """
        device = self.cos.device
        self.cos, self.sin = rotary_tables(
            self.config.dim // self.config.heads, self.length, self.config.rope_theta, device
        )
        # Two residual branches a layer: outputs shrink with depth (GPT-2's rule), all else is N(0, 0.02).
        small = 0.02 / math.sqrt(2 * self.config.layers)
        for index, (name, parameter) in enumerate(self.named_parameters()):
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
                continue
            std = small if name.endswith(("attention.out.weight", "ffn.down.weight")) else 0.02
            _fill_normal(parameter, std, seed * 1_000_003 + index)

    def flops_per_token(self) -> float:
        """Floating-point operations of forward and backward a token: 6 a weight that multiplies, and attention.

        The rule of PaLM (appendix B): 6 N + 12 L H Q T, with N without the embedding table's look-up.
        """
        weights = sum(parameter.numel() for parameter in self.parameters())
        if not self.config.tied:
            weights -= self.embedding.weight.numel()
        return 6.0 * weights + 12.0 * self.config.layers * self.config.dim * self.length


def _fill_normal(parameter: Tensor, std: float, seed: int) -> None:
    from torch.distributed.tensor import DTensor, distribute_tensor

    device = parameter.device
    generator = torch.Generator(device).manual_seed(seed)
    whole = torch.empty(parameter.shape, dtype=torch.float32, device=device).normal_(0.0, std, generator=generator)
    if isinstance(parameter, DTensor):
        mesh, placements = parameter.device_mesh, parameter.placements
        # Every rank drew the same numbers, so nothing need be sent: each keeps its own part.
        part = distribute_tensor(whole, mesh, placements, src_data_rank=None)
        parameter.to_local().copy_(part.to_local())
    else:
        parameter.copy_(whole)
