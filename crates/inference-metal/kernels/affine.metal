// A matrix of BITS bits, [n, stride]: w = q * scale + bias, with a scale and a bias of TYPE for each 1 << shift columns. A row is a
// stream of bits, of which 16 numbers are taken at a time.

typedef Number<TYPE>::Bits Stored;

struct Matrix { device const ushort *w; device const Stored *scales, *biases; uint stride, shift; };
#define MATRIX(w, scales, biases, stride, shift) \
  Matrix{(device const ushort *)w, (device const Stored *)scales, (device const Stored *)biases, stride, shift}

#define WORDS ((BITS + 1) / 2)  // of 16 numbers

struct Sixteen { uint words[WORDS]; float scale, bias; };

static inline Sixteen fetch(Matrix m, uint row, uint k) {
  Sixteen s;
  device const ushort *from = m.w + ((ulong)row * m.stride + k) / 16 * BITS;
#if BITS == 8
  const uint4 v = *(device const uint4 *)from;
  s.words[0] = v.x, s.words[1] = v.y, s.words[2] = v.z, s.words[3] = v.w;
#elif BITS == 4
  const uint2 v = *(device const uint2 *)from;
  s.words[0] = v.x, s.words[1] = v.y;
#elif BITS % 2 == 0
  UNROLL for (uint i = 0; i < WORDS; i++) s.words[i] = ((device const uint *)from)[i];
#else
  UNROLL for (uint i = 0; i < WORDS; i++) s.words[i] = from[2 * i] | (2 * i + 1 < BITS ? (uint)from[2 * i + 1] << 16 : 0u);
#endif
  const ulong at = (ulong)row * (m.stride >> m.shift) + (k >> m.shift);
  s.scale = number<TYPE>(m.scales[at]), s.bias = number<TYPE>(m.biases[at]);
  return s;
}

// Eight of the numbers q: the first or the second half.
static inline void unpack(Sixteen s, uint half_of, thread float *to) {
  UNROLL for (uint i = 0; i < 8; i++) {
    const uint bit = (8 * half_of + i) * BITS, word = bit / 32, shift = bit % 32;
    uint q = s.words[word] >> shift;
    if (shift + BITS > 32) q |= s.words[(word + 1) % WORDS] << (32 - shift) % 32;
    to[i] = (float)(q & ((1u << BITS) - 1u));
  }
}

// The weight of what `unpack` gave.
static inline float weight(Sixteen s, float q) { return fma(q, s.scale, s.bias); }

// sum + Σ x w = sum + scale · Σ x q + bias · Σ x over eight numbers; `all` is Σ x.
static inline float times(Sixteen s, thread const float *x, float all, thread const float *q, float sum) {
  float dot = 0;
  UNROLL for (uint i = 0; i < 8; i++) dot = fma(x[i], q[i], dot);
  return fma(s.scale, dot, fma(s.bias, all, sum));
}
