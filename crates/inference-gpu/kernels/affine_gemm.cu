// Products of many rows with a matrix of BITS bits, which becomes f16 on its way into shared memory.

struct AffineRows {
  static constexpr u32 NUMBERS = 16;
  struct Held { u32 words[WORDS16(BITS)]; Group group; };
  const u32 *w;
  const void *groups;
  u32 stride, shift;
  int type;
  DEV_METHOD Held fetch(u32 row, u32 k) const {
    Held held;
    load16<BITS>((const u16 *)w + ((u64)row * stride + k) / 16 * BITS, held.words);
    held.group = group_of(groups, (u64)row * (stride >> shift) + (k >> shift), type);
    return held;
  }
  DEV_METHOD void put(const Held &held, u16 *to) const {
    UNROLL for (int i = 0; i < 16; i += 2) {
      u16 low = f2h(fma_f((float)number16<BITS>(held.words, i), held.group.scale, held.group.bias));
      u16 high = f2h(fma_f((float)number16<BITS>(held.words, i + 1), held.group.scale, held.group.bias));
      *(u32 *)(to + i) = low | (u32)high << 16;
    }
  }
};

#define GEMM(name, S)                                                                                                       \
  KERNEL(256) name(float *y, const u16 *x, const float *scale, const u32 *w, const void *groups, const float *bias,         \
                   u32 rows, u32 stride, u32 n, u32 y_stride, int mode, u32 shift, int type) {                              \
    alignas(16) SHARED u16 shared[(S::rows + S::cols) * PITCH];                                                             \
    product<F16, S>(shared, AffineRows{w, groups, stride, shift, type}, y, x, scale, bias, rows, stride, n, y_stride, mode); \
  }
GEMM(affine_gemm_small, Small)
GEMM(affine_gemm_large, Large)
