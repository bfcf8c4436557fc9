// y = x·Wᵀ + bias for many rows: a threadgroup of four SIMD groups computes 16 DOWN x 64 outputs, 8 x 8 at a time, in f32. A sum runs
// along the columns in one order, whatever else is in the step. With a gate the 64 are 32 outputs of each half.

#define DEPTH 32u  // columns at a time
#define PITCH 36u  // numbers between rows in threadgroup memory, so that they lie in different banks
#define ACROSS 64u

// Row of W for column c of the threadgroup.
static inline uint weight_row(uint block, uint c, uint n, uint mode) {
  if (mode < GATE) return min(block * ACROSS + c, n - 1);
  const uint half_of = ACROSS / 2;
  return min(block * half_of + c % half_of, n - 1) + (c < half_of ? 0 : n);
}

// `shared` has room for (16 DOWN + ACROSS) rows of PITCH numbers: of x, and after them of W; in the end for what comes out.
template <int DOWN>
static inline void gemm(threadgroup float *shared, device float *y, device const float *x, Matrix w, device const float *bias,
                        constant Product &a, uint3 group, uint wave, uint lane) {
  const uint thread_of = wave * WAVE + lane, row0 = group.x * 16 * DOWN;
  threadgroup float *left = shared, *right = shared + 16 * DOWN * PITCH;
  // A SIMD group has DOWN x 4 tiles: the upper or the lower half of the rows, the left or the right half of the columns.
  const uint down = wave / 2 * 8 * DOWN, across = wave % 2 * 32;
  simdgroup_float8x8 sums[DOWN][4];
  UNROLL for (uint i = 0; i < DOWN; i++) UNROLL for (uint j = 0; j < 4; j++) sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);

  // A thread brings 16 columns of a row of W, and 16 of x for each 64 rows.
  const uint column = thread_of % 2 * 16, row = thread_of / 2, of_w = weight_row(group.y, row, a.n, a.mode);
  device const float *of_x = x + (ulong)min(row0 + row, a.rows - 1) * a.cols;
  for (uint k = 0; k < a.stride; k += DEPTH) {
    const Sixteen held = fetch(w, of_w, k + column);
    sync_group();
    UNROLL for (uint half_of = 0; half_of < 2; half_of++) {
      float v[8];
      const uint to = row * PITCH + column + 8 * half_of;
      unpack(held, half_of, v);
      UNROLL for (uint i = 0; i < 8; i++) right[to + i] = weight(held, v[i]);
      if (row < 16 * DOWN) {
        eight(of_x, k + column + 8 * half_of, a.cols, v);
        UNROLL for (uint i = 0; i < 8; i++) left[to + i] = v[i];
      }
    }
    sync_group();
    UNROLL for (uint d = 0; d < DEPTH; d += 8) {
      simdgroup_float8x8 b[4];
      UNROLL for (uint j = 0; j < 4; j++) simdgroup_load(b[j], right + (across + 8 * j) * PITCH + d, PITCH, ulong2(0, 0), true);
      UNROLL for (uint i = 0; i < DOWN; i++) {
        simdgroup_float8x8 t;
        simdgroup_load(t, left + (down + 8 * i) * PITCH + d, PITCH, ulong2(0, 0), false);
        UNROLL for (uint j = 0; j < 4; j++) simdgroup_multiply_accumulate(sums[i][j], t, b[j], sums[i][j]);
      }
    }
  }

  sync_group();
  UNROLL for (uint i = 0; i < DOWN; i++) UNROLL for (uint j = 0; j < 4; j++)
    simdgroup_store(sums[i][j], shared + (down + 8 * i) * ACROSS + across + 8 * j, ACROSS, ulong2(0, 0), false);
  sync_group();
  const bool gated = a.mode >= GATE;
  const uint width = gated ? ACROSS / 2 : ACROSS, first = group.y * width;
  for (uint i = thread_of; i < 16 * DOWN * width; i += 4 * WAVE) {
    const uint r = i / width, c = i % width, col = first + c;
    if (row0 + r >= a.rows || col >= a.n) continue;
    device float *out = y + (ulong)(row0 + r) * a.y_stride + col;
    float v = shared[r * ACROSS + c] + (a.has_bias ? bias[col] : 0.0f);
    if (gated) v = activated(v, a.mode - 1) * (shared[r * ACROSS + c + width] + (a.has_bias ? bias[col + a.n] : 0.0f));
    *out = a.mode == ADD ? *out + v : v;
  }
}

#define GEMM(name, DOWN)                                                                                                        \
  KERNEL(128) name(device float *y [[buffer(0)]], device const float *x [[buffer(1)]], device const uint *w [[buffer(2)]],      \
                   device const uint *scales [[buffer(3)]], device const uint *biases [[buffer(4)]],                            \
                   device const float *bias [[buffer(5)]], constant Product &a [[buffer(6)]], PLACE) {                          \
    SHARED float shared[(16 * DOWN + ACROSS) * PITCH];                                                                          \
    gemm<DOWN>(shared, y, x, MATRIX(w, scales, biases, a.stride, a.shift), bias, a, group, wave, lane);                         \
  }
GEMM(gemm_32, 2)
GEMM(gemm_64, 4)
