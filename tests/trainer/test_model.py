"""The decoder's parts against what their definitions say, and a start that no sharding changes."""

import pytest
from needs import need

need("torch")

import torch  # noqa: E402 (after the check for torch)

from trainer.config import PRESETS, ModelConfig  # noqa: E402
from trainer.model import Attention, Decoder, rotary_tables, rotate  # noqa: E402

TINY = ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=64, vocab=64)


def decoder(config: ModelConfig = TINY, length: int = 16) -> Decoder:
    with torch.device("meta"):
        model = Decoder(config, length)
    model.to_empty(device="cpu")
    model.init_weights(1)
    return model


def test_rotation_keeps_lengths_and_depends_on_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 8)
    cos, sin = rotary_tables(8, 32, 10_000.0, torch.device("cpu"))

    def product(at: int, other: int) -> float:
        turned = [rotate(x.view(1, 1, 1, 8), cos[p : p + 1], sin[p : p + 1]) for x, p in ((q, at), (k, other))]
        return float((turned[0] * turned[1]).sum())

    assert product(5, 3) == pytest.approx(product(25, 23), abs=1e-5)
    assert product(5, 3) != pytest.approx(product(5, 4), abs=1e-3)
    assert product(0, 0) == pytest.approx(float(q @ k), abs=1e-5)


def test_a_token_sees_nothing_after_itself() -> None:
    model = decoder()
    tokens = torch.randint(0, 64, (1, 16), generator=torch.Generator().manual_seed(0))
    before = model(tokens)
    tokens[0, 10] = (tokens[0, 10] + 1) % 64
    after = model(tokens)
    assert torch.equal(before[0, :10], after[0, :10])
    assert not torch.equal(before[0, 10:], after[0, 10:])


def test_grouped_queries_equal_keys_and_values_repeated() -> None:
    torch.manual_seed(0)
    grouped, full = Attention(TINY), Attention(ModelConfig(dim=32, layers=1, heads=4, kv_heads=4, ffn=64, vocab=64))
    with torch.no_grad():
        full.query.weight.copy_(grouped.query.weight)
        full.out.weight.copy_(grouped.out.weight)
        for name in ("key", "value"):
            few = getattr(grouped, name).weight.view(2, 8, 32)
            getattr(full, name).weight.copy_(few.repeat_interleave(2, dim=0).view(32, 32))
    x = torch.randn(2, 16, 32)
    cos, sin = rotary_tables(8, 16, 10_000.0, torch.device("cpu"))
    torch.testing.assert_close(grouped(x, cos, sin), full(x, cos, sin))


def test_the_start_is_the_seeds_and_no_parameter_is_left_out() -> None:
    first, second = decoder(), decoder()
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert torch.isfinite(one).all(), name
    spread = {name: float(parameter.detach().std()) for name, parameter in first.named_parameters()}
    assert spread["blocks.0.ffn.gate.weight"] == pytest.approx(0.02, rel=0.1)
    assert spread["blocks.0.ffn.down.weight"] == pytest.approx(0.01, rel=0.1)


def test_tied_weights_are_one_parameter_that_learns_from_both_uses() -> None:
    model = decoder(ModelConfig(dim=32, layers=1, heads=4, kv_heads=4, ffn=64, vocab=64, tied=True))
    names = [name for name, _ in model.named_parameters()]
    assert "embedding.weight" in names
    assert "head.weight" not in names
    model(torch.zeros((1, 4), dtype=torch.int64)).logsumexp(-1).sum().backward()
    assert model.embedding.weight.grad is not None
    assert bool((model.embedding.weight.grad[1:] != 0).any()), "rows that were never looked up learn from the logits"


def test_operations_a_token_are_those_of_the_rule() -> None:
    """Llama-3.1-8B at 8,192 tokens: 6 x 7.5 G weights without the table, 12 x 32 x 4096 x 8192 of attention."""
    preset = PRESETS["8b"]
    with torch.device("meta"):
        model = Decoder(preset.model, preset.sequence)
    assert model.flops_per_token() == 6 * (8_030_261_248 - 128_256 * 4096) + 12 * 32 * 4096 * 8192


def test_recomputing_changes_no_bit_of_a_gradient() -> None:
    gradients = []
    for recompute in (False, True):
        model = decoder()
        for block in model.blocks:
            block.recompute = recompute  # type: ignore[assignment]
        model(torch.arange(16).view(1, 16)).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert plain is not None
        assert again is not None
        assert torch.equal(plain, again)
