// y = x·Wᵀ for up to M rows of x at a time, in f32. A wave computes two outputs, its lanes along the columns; the order of a sum
// depends on the number of columns alone.

// What becomes of a product; the same in src/linear.rs.
#define STORE 0
#define ADD 1
#define GATE_SILU 2
#define GATE_GELU 3

struct Vectors {  // the rows of x, [rows, cols]
  const float *x;
  u32 rows, cols;
};

// Eight numbers of a row from column k on; beyond its end they are 0.
template <int T> DEV void eight(const Vectors &v, u32 row, u32 k, float *out) {
  const float *x = v.x + (u64)row * v.cols + k;
  if (k + 8 <= v.cols && v.cols % 4 == 0) {
    f32x4 a = ((const f32x4 *)x)[0], b = ((const f32x4 *)x)[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  } else {
    UNROLL for (int i = 0; i < 8; i++) out[i] = k + i < v.cols ? x[i] : 0.0f;
  }
  UNROLL for (int i = 0; i < 8; i++) out[i] = rounded<T>(out[i]);
}

// The outputs of this wave: rows of W, and where they go. `n` is how many outputs there are, after the gate.
struct Outputs { u32 first, second; bool two; };
DEV Outputs outputs(u32 n, int mode) {
  u32 wave = BID_X * (128 / WAVE) + TID / WAVE;
  if (mode >= GATE_SILU) return {wave, wave + n, false};
  return {2 * wave, min_u(2 * wave + 1, n - 1), 2 * wave + 1 < n};
}

// Writes sums[m][0..2], of which every lane has all.
template <int M> DEV void finish(float (*sums)[2], float *y, u32 stride, const float *bias, u32 row0, u32 rows, Outputs o, int mode) {
  UNROLL for (int m = 0; m < M; m++) {
    float a = wave_sum(sums[m][0]), b = wave_sum(sums[m][1]);
    if (TID % WAVE != 0 || row0 + m >= rows) continue;
    if (bias) a += bias[o.first], b += bias[o.second];
    float *out = y + (u64)(row0 + m) * stride + o.first;
    if (mode >= GATE_SILU) {
      out[0] = activated(a, mode - GATE_SILU + 1) * b;
    } else {
      out[0] = mode == ADD ? out[0] + a : a;
      if (o.two) out[1] = mode == ADD ? out[1] + b : b;
    }
  }
}
