// Products of up to M rows at a time with a matrix of BITS bits, [out, stride / 32 * BITS words]; 1 << shift columns share a
// scale and a bias. Within 16 columns the sum is scale · Σ x q + bias · Σ x.

template <int M> DEV void affine(float *y, Vectors v, const u32 *w, const void *groups, const float *bias, u32 stride, u32 n,
                                 u32 y_stride, int mode, u32 shift, int type) {
  Outputs o = outputs(n, mode);
  if (o.first >= n) return;
  u32 row0 = BID_Y * M, of_row = stride >> shift;
  float sums[M][2];
  UNROLL for (int m = 0; m < M; m++) sums[m][0] = sums[m][1] = 0;
  for (u32 k = TID % WAVE * 16; k < stride; k += WAVE * 16) {
    u32 a[16], b[16];
    unpack16<BITS>((const u16 *)w + ((u64)o.first * stride + k) / 16 * BITS, a);
    unpack16<BITS>((const u16 *)w + ((u64)o.second * stride + k) / 16 * BITS, b);
    Group ga = group_of(groups, (u64)o.first * of_row + (k >> shift), type);
    Group gb = group_of(groups, (u64)o.second * of_row + (k >> shift), type);
    UNROLL for (int m = 0; m < M; m++) {
      u32 row = min_u(row0 + m, v.rows - 1);
      float x[16], sum = 0, da = 0, db = 0;
      eight<F32>(v, row, k, x);
      eight<F32>(v, row, k + 8, x + 8);
      UNROLL for (int i = 0; i < 16; i++) {
        sum += x[i];
        da = fma_f(x[i], (float)a[i], da);
        db = fma_f(x[i], (float)b[i], db);
      }
      sums[m][0] = fma_f(ga.scale, da, fma_f(ga.bias, sum, sums[m][0]));
      sums[m][1] = fma_f(gb.scale, db, fma_f(gb.bias, sum, sums[m][1]));
    }
  }
  finish<M>(sums, y, y_stride, bias, row0, v.rows, o, mode);
}

#define GEMV(name, M)                                                                                                       \
  KERNEL(128) name(float *y, const float *x, const u32 *w, const void *groups, const float *bias, u32 rows, u32 cols,       \
                   u32 stride, u32 n, u32 y_stride, int mode, u32 shift, int type) {                                        \
    affine<M>(y, Vectors{x, rows, cols}, w, groups, bias, stride, n, y_stride, mode, shift, type);                          \
  }
GEMV(affine_gemv_1, 1)
GEMV(affine_gemv_2, 2)
GEMV(affine_gemv_4, 4)
GEMV(affine_gemv_8, 8)

// y[r] = scale · table[token[r]], in the order of the columns; a block for each token.
KERNEL(256) affine_embed(float *y, const u32 *w, const void *groups, const u32 *tokens, u32 cols, u32 stride, float scale, u32 shift,
                         int type) {
  u64 token = tokens[BID_X];
  for (u32 k = TID * 16; k < cols; k += 256 * 16) {
    u32 q[16];
    unpack16<BITS>((const u16 *)w + (token * stride + k) / 16 * BITS, q);
    Group g = group_of(groups, token * (stride >> shift) + (k >> shift), type);
    UNROLL for (u32 i = 0; i < 16; i++)
      if (k + i < cols) y[(u64)BID_X * cols + k + i] = scale * ((float)q[i] * g.scale + g.bias);
  }
}
