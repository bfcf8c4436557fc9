// y = x·Wᵀ + bias for up to M rows of x at a time. A SIMD group computes four rows of W, its lanes along the columns; the order of a
// sum depends on the number of columns alone.

// What becomes of a product; the same as Epilogue in src/operations.rs.
#define STORE 0
#define ADD 1
#define GATE 2  // and up: 1 + how it is activated

struct Product { uint rows, cols, stride, n, y_stride, mode, shift, has_bias; };

// Eight numbers of a row of x from column k on; beyond its end they are 0.
static inline void eight(device const float *row, uint k, uint cols, thread float *out) {
  if (k + 8 <= cols && cols % 4 == 0) {
    UNROLL for (uint i = 0; i < 2; i++) {
      const float4 v = ((device const float4 *)(row + k))[i];
      out[4 * i] = v.x, out[4 * i + 1] = v.y, out[4 * i + 2] = v.z, out[4 * i + 3] = v.w;
    }
  } else {
    UNROLL for (uint i = 0; i < 8; i++) out[i] = k + i < cols ? row[k + i] : 0.0f;
  }
}

template <int M>
static inline void gemv(device float *y, device const float *x, Matrix w, device const float *bias, constant Product &a, uint3 group,
                        uint wave, uint lane) {
  // Rows of W: neighbours, or with a gate two and those n further.
  const bool gated = a.mode >= GATE;
  const uint first = (2 * group.x + wave) * (gated ? 2 : 4), row0 = group.y * M;
  if (first >= a.n) return;
  uint rows[4];
  UNROLL for (uint r = 0; r < 4; r++)
    rows[r] = gated ? min(first + r % 2, a.n - 1) + (r < 2 ? 0 : a.n) : min(first + r, a.n - 1);

  float sums[M][4];
  UNROLL for (uint m = 0; m < M; m++) UNROLL for (uint r = 0; r < 4; r++) sums[m][r] = 0;
  for (uint k = lane * 16; k < a.stride; k += WAVE * 16) {
    Sixteen held[4];
    UNROLL for (uint r = 0; r < 4; r++) held[r] = fetch(w, rows[r], k);
    UNROLL for (uint half_of = 0; half_of < 2; half_of++) {
      float q[4][8];
      UNROLL for (uint r = 0; r < 4; r++) unpack(held[r], half_of, q[r]);
      UNROLL for (uint m = 0; m < M; m++) {
        float v[8], all = 0;
        eight(x + (ulong)min(row0 + m, a.rows - 1) * a.cols, k + 8 * half_of, a.cols, v);
        UNROLL for (uint i = 0; i < 8; i++) all += v[i];
        UNROLL for (uint r = 0; r < 4; r++) sums[m][r] = times(held[r], v, all, q[r], sums[m][r]);
      }
    }
  }

  UNROLL for (uint m = 0; m < M; m++) {
    UNROLL for (uint r = 0; r < 4; r++) sums[m][r] = simd_sum(sums[m][r]) + (a.has_bias ? bias[rows[r]] : 0.0f);
    if (lane == 0 && row0 + m < a.rows) {
      device float *out = y + (ulong)(row0 + m) * a.y_stride + first;
      UNROLL for (uint r = 0; r < 4; r++) {
        if (first + r >= a.n || (gated && r >= 2)) continue;
        if (gated) out[r] = activated(sums[m][r], a.mode - 1) * sums[m][(r + 2) % 4];
        else out[r] = a.mode == ADD ? out[r] + sums[m][r] : sums[m][r];
      }
    }
  }
}

#define GEMV(name, M)                                                                                                           \
  KERNEL(64) name(device float *y [[buffer(0)]], device const float *x [[buffer(1)]], device const uint *w [[buffer(2)]],       \
                  device const uint *scales [[buffer(3)]], device const uint *biases [[buffer(4)]],                             \
                  device const float *bias [[buffer(5)]], constant Product &a [[buffer(6)]], PLACE) {                           \
    gemv<M>(y, x, MATRIX(w, scales, biases, a.stride, a.shift), bias, a, group, wave, lane);                                    \
  }
GEMV(gemv_1, 1)
GEMV(gemv_2, 2)
GEMV(gemv_4, 4)
GEMV(gemv_8, 8)
