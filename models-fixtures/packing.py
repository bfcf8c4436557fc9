"""How GPTQ, AWQ and FP8 store a matrix `[out, in]`, and the numbers that are meant.

Written after the tools that read them: AutoGPTQ (`qlinear_cuda_old.py`), AutoAWQ (`modules/linear/gemm.py`),
`transformers` (`integrations/finegrained_fp8.py`), compressed-tensors. Each function gives the tensors that stand in
place of `weight`, the dequantised matrix in f32, and wrong readings of the same tensors that the goldens must notice.
"""

import torch

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # which output each nibble of a word is of


def to_words(numbers, bits):
    """Rows of numbers as little-endian bit streams in 32-bit words."""
    rows, count = numbers.shape
    places = torch.arange(bits)
    stream = ((numbers.long()[:, :, None] >> places) & 1).reshape(rows, count * bits // 32, 32)
    words = (stream << torch.arange(32)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def rounded(weight, groups, bits, symmetric):
    """Whole numbers, zeros and f16 scales of a matrix; `groups` is the group of each input."""
    count, most = int(groups.max()) + 1, 2**bits - 1
    scales, zeros = torch.zeros(weight.shape[0], count), torch.zeros(weight.shape[0], count, dtype=torch.long)
    for group in range(count):
        part = weight[:, groups == group]
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        if symmetric:
            high = torch.maximum(high, -low)
            low = -high
        scales[:, group] = ((high - low) / most).clamp(min=2.0**-14).half().float()
        zero = torch.full_like(low, 2 ** (bits - 1)) if symmetric else (-low / scales[:, group]).round()
        zeros[:, group] = zero.clamp(0, most).long()
    numbers = (weight / scales[:, groups]).round().long() + zeros[:, groups]
    return numbers.clamp(0, most), zeros, scales


def gptq(weight, bits=4, group=128, symmetric=True, version=1, generator=None):
    """GPTQ. With a generator, inputs belong to groups at random, as act-order leaves them."""
    inputs = weight.shape[1]
    group = group if group > 0 else inputs
    groups = torch.arange(inputs) // group
    if generator is not None:
        groups = groups[torch.randperm(inputs, generator=generator)]
    numbers, zeros, scales = rounded(weight, groups, bits, symmetric)
    if version == 1:
        zeros = zeros.clamp(min=1)  # less one, a zero of 0 would not fit
        numbers = ((weight / scales[:, groups]).round().long() + zeros[:, groups]).clamp(0, 2**bits - 1)
    tensors = {
        "qweight": to_words(numbers, bits).T.contiguous(),
        "qzeros": to_words((zeros - int(version == 1)).T, bits),
        "scales": scales.T.contiguous().half(),
        "g_idx": groups.to(torch.int32),
    }
    meant = (numbers - zeros[:, groups]) * scales[:, groups]
    wrong = {
        "zeros of the other version": (numbers - zeros[:, groups] + (1 if version == 1 else -1)) * scales[:, groups],
        "no zeros": numbers * scales[:, groups],
    }
    if generator is not None:
        neighbours = torch.arange(inputs) // group
        wrong["groups are neighbours"] = (numbers - zeros[:, neighbours]) * scales[:, neighbours]
        wrong["numbers in the order of groups"] = meant[:, torch.argsort(groups, stable=True)]
    return tensors, meant, wrong


def awq(weight, group=128):
    """AWQ for the kernel `gemm`, 4 bits."""
    groups = torch.arange(weight.shape[1]) // group
    numbers, zeros, scales = rounded(weight, groups, 4, symmetric=False)

    def packed(rows):
        return to_words(rows.reshape(rows.shape[0], -1, 8)[:, :, AWQ_ORDER].reshape(rows.shape), 4)

    tensors = {
        "qweight": packed(numbers.T), "qzeros": packed(zeros.T), "scales": scales.T.contiguous().half(),
    }
    meant = (numbers - zeros[:, groups]) * scales[:, groups]
    plain = torch.tensor(AWQ_ORDER)[torch.arange(weight.shape[0]) % 8] + torch.arange(weight.shape[0]) // 8 * 8
    wrong = {
        "outputs in the order of bits": (numbers[plain] - zeros[:, groups][plain]) * scales[:, groups],
        "zeros less one": (numbers - zeros[:, groups] + 1) * scales[:, groups],
    }
    return tensors, meant, wrong


def blocks(weight, block):
    """The largest magnitude of each block, and that for each number."""
    rows, cols = weight.shape
    high, wide = (-(-rows // block[0]), -(-cols // block[1]))
    largest = torch.stack([
        torch.stack([weight[r * block[0]:(r + 1) * block[0], c * block[1]:(c + 1) * block[1]].abs().max()
                     for c in range(wide)]) for r in range(high)])
    spread = largest.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[:rows, :cols]
    return largest, spread


def fp8(weight, block=(128, 128), name="weight_scale_inv", dtype=torch.float32):
    """E4M3 with a scale for each block; what is meant is rounded to bf16, as those who convert it do."""
    largest, _ = blocks(weight, block)
    scales = (largest / torch.finfo(torch.float8_e4m3fn).max).to(dtype)
    spread = scales.float().repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    spread = spread[: weight.shape[0], : weight.shape[1]]
    numbers = (weight / spread).to(torch.float8_e4m3fn)
    wide = numbers.float()
    wrong = {"scales ignored": wide * spread.mean(), "exponent less one": wide * spread / 2}
    return {"weight": numbers, name: scales}, (wide * spread).bfloat16().float(), wrong
