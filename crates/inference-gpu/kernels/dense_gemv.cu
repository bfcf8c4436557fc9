// Products of up to M rows at a time with a matrix of f32, f16 or bf16, [out, stride].

template <int T> DEV void weights8(const void *w, u64 at, float *out) {
  if (T == F32) {
    const f32x4 *p = (const f32x4 *)((const float *)w + at);
    f32x4 a = p[0], b = p[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    return;
  }
  u32x4 v = *(const u32x4 *)((const u16 *)w + at);
  const u32 words[4] = {v.x, v.y, v.z, v.w};
  UNROLL for (int i = 0; i < 4; i++) {
    out[2 * i] = from16<T>((u16)words[i]);
    out[2 * i + 1] = from16<T>((u16)(words[i] >> 16));
  }
}

template <int T, int M> DEV void dense(float *y, Vectors v, const void *w, const float *bias, u32 stride, u32 n, u32 y_stride, int mode) {
  Outputs o = outputs(n, mode);
  if (o.first >= n) return;
  u32 row0 = BID_Y * M;
  float sums[M][2];
  UNROLL for (int m = 0; m < M; m++) sums[m][0] = sums[m][1] = 0;
  for (u32 k = TID % WAVE * 8; k < stride; k += WAVE * 8) {
    float a[8], b[8];
    weights8<T>(w, (u64)o.first * stride + k, a);
    weights8<T>(w, (u64)o.second * stride + k, b);
    UNROLL for (int m = 0; m < M; m++) {
      float x[8];
      eight<T>(v, min_u(row0 + m, v.rows - 1), k, x);
      UNROLL for (int i = 0; i < 8; i++) {
        sums[m][0] = fma_f(x[i], a[i], sums[m][0]);
        sums[m][1] = fma_f(x[i], b[i], sums[m][1]);
      }
    }
  }
  finish<M>(sums, y, y_stride, bias, row0, v.rows, o, mode);
}

#define GEMV(name, T, M)                                                                                                    \
  KERNEL(128) name(float *y, const float *x, const void *w, const float *bias, u32 rows, u32 cols, u32 stride, u32 n,       \
                   u32 y_stride, int mode) {                                                                                \
    dense<T, M>(y, Vectors{x, rows, cols}, w, bias, stride, n, y_stride, mode);                                             \
  }
GEMV(gemv_f32_1, F32, 1)
GEMV(gemv_f32_2, F32, 2)
GEMV(gemv_f32_4, F32, 4)
GEMV(gemv_f32_8, F32, 8)
GEMV(gemv_f16_1, F16, 1)
GEMV(gemv_f16_2, F16, 2)
GEMV(gemv_f16_4, F16, 4)
GEMV(gemv_f16_8, F16, 8)
GEMV(gemv_bf16_1, BF16, 1)
GEMV(gemv_bf16_2, BF16, 2)
GEMV(gemv_bf16_4, BF16, 4)
GEMV(gemv_bf16_8, BF16, 8)
