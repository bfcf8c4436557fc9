// A matrix of TYPE, [n, stride], 16 numbers at a time.

struct Matrix { device const Number<TYPE>::Bits *w; uint stride; };
#define MATRIX(w, scales, biases, stride, shift) Matrix{(device const Number<TYPE>::Bits *)w, stride}

// 16 numbers as they are in memory.
#if TYPE == F32
struct Sixteen { float4 v[4]; };
#else
struct Sixteen { uint4 v[2]; };
#endif

static inline Sixteen fetch(Matrix m, uint row, uint k) {
  Sixteen s;
  const ulong at = (ulong)row * m.stride + k;
#if TYPE == F32
  device const float4 *from = (device const float4 *)(m.w + at);
  UNROLL for (uint i = 0; i < 4; i++) s.v[i] = from[i];
#else
  device const uint4 *from = (device const uint4 *)(m.w + at);
  UNROLL for (uint i = 0; i < 2; i++) s.v[i] = from[i];
#endif
  return s;
}

// Eight of them as floats: the first or the second half.
static inline void unpack(Sixteen s, uint half_of, thread float *to) {
#if TYPE == F32
  UNROLL for (uint i = 0; i < 2; i++) {
    const float4 v = s.v[2 * half_of + i];
    to[4 * i] = v.x, to[4 * i + 1] = v.y, to[4 * i + 2] = v.z, to[4 * i + 3] = v.w;
  }
#else
  const uint4 v = s.v[half_of];
  const uint words[4] = {v.x, v.y, v.z, v.w};
  UNROLL for (uint i = 0; i < 4; i++) {
    to[2 * i] = from_bits<TYPE>((ushort)words[i]);
    to[2 * i + 1] = from_bits<TYPE>((ushort)(words[i] >> 16));
  }
#endif
}

// The weight of what `unpack` gave.
static inline float weight(Sixteen, float w) { return w; }

// sum + Σ x w over eight numbers; `all` is Σ x.
static inline float times(Sixteen, thread const float *x, float all, thread const float *w, float sum) {
  UNROLL for (uint i = 0; i < 8; i++) sum = fma(x[i], w[i], sum);
  return sum;
}
