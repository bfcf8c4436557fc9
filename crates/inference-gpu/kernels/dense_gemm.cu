// Products of many rows with a matrix of f16 or bf16, [out, stride].

struct Dense {
  static constexpr u32 NUMBERS = 8;
  typedef u32x4 Held;
  const u16 *w;
  u32 stride;
  DEV_METHOD u32x4 fetch(u32 row, u32 k) const { return *(const u32x4 *)(w + (u64)row * stride + k); }
  DEV_METHOD void put(const u32x4 &held, u16 *to) const { *(u32x4 *)to = held; }
};

#define GEMM(name, T, S)                                                                                                    \
  KERNEL(256) name(float *y, const u16 *x, const float *scale, const u16 *w, const float *bias, u32 rows, u32 stride,       \
                   u32 n, u32 y_stride, int mode) {                                                                         \
    alignas(16) SHARED u16 shared[(S::rows + S::cols) * PITCH];                                                             \
    product<T, S>(shared, Dense{w, stride}, y, x, scale, bias, rows, stride, n, y_stride, mode);                            \
  }
GEMM(gemm_f16_small, F16, Small)
GEMM(gemm_f16_large, F16, Large)
GEMM(gemm_bf16_small, BF16, Small)
GEMM(gemm_bf16_large, BF16, Large)
