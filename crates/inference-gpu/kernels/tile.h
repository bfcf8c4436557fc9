// Products of tiles of 16 x 16 16-bit numbers, summed in f32: C += A·Bᵀ, where a wave holds the tiles together.
// `Operand` holds 16 rows of A or of B; they are read from shared memory, rows `stride` numbers apart and each aligned to 16 bytes.
// `Sums` holds C: number i of lane l is C[tile_row(l, i)][tile_col(l, i)].
// Layouts: AMD's matrix instruction calculator, and the PTX ISA for m16n8k16.

#if defined(SIMT_CPU)
#define TILE SIMT_TILE
#elif defined(__CUDA_ARCH__)
#define TILE (__CUDA_ARCH__ >= 800 ? 80 : 0)
#elif defined(__GFX11__)
#define TILE 11
#elif defined(__gfx1200__) || defined(__gfx1201__)
#define TILE 12
#elif defined(__gfx908__) || defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx950__)
#define TILE 9
#else
#define TILE 0
#endif

struct Sums { float v[256 / WAVE]; };
DEV void clear(Sums &c) {
  UNROLL for (int i = 0; i < 256 / WAVE; i++) c.v[i] = 0;
}

#if TILE == 80  // NVIDIA
struct Operand { u32 v[4]; };
DEV u32 tile_row(u32 l, u32 i) { return l / 4 + 8 * (i / 2 % 2); }
DEV u32 tile_col(u32 l, u32 i) { return l % 4 * 2 + i % 2 + 8 * (i / 4); }
DEV Operand operand(const u16 *s, u32 stride) {
  u32 l = TID % WAVE;
  const u16 *p = s + l / 4 * stride + l % 4 * 2;
  return {{*(const u32 *)p, *(const u32 *)(p + 8 * stride), *(const u32 *)(p + 8), *(const u32 *)(p + 8 * stride + 8)}};
}
#if defined(SIMT_CPU)
template <int T> DEV void mma_16x8(float *c, const u32 *a, const u32 *b) { simt::mma_m16n8k16(a, b, c, T == F16); }
#else
template <int T> DEV void mma_16x8(float *c, const u32 *a, const u32 *b) {
  if (T == F16)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
template <int T> DEV void multiply(Sums &c, const Operand &a, const Operand &b) {
  const u32 low[2] = {b.v[0], b.v[2]}, high[2] = {b.v[1], b.v[3]};
  mma_16x8<T>(c.v, a.v, low);
  mma_16x8<T>(c.v + 4, a.v, high);
}
#elif TILE == 11 || TILE == 12 || TILE == 9  // AMD: a lane holds columns of row l % 16
#define HELD (TILE == 11 ? 16 : 256 / WAVE)
struct alignas(HELD < 8 ? 2 * HELD : 16) Operand { u16 v[HELD]; };
DEV u32 tile_row(u32 l, u32 i) { return TILE == 11 ? 2 * i + l / 16 : 256 / WAVE * (l / 16) + i; }
DEV u32 tile_col(u32 l, u32 i) { return l % 16; }
DEV Operand operand(const u16 *s, u32 stride) {
  u32 l = TID % WAVE;
  return *(const Operand *)(s + l % 16 * stride + (TILE == 11 ? 0 : l / 16 * HELD));
}
#if defined(SIMT_CPU)
template <int T> DEV void multiply(Sums &c, const Operand &a, const Operand &b) {
#if TILE == 11
  simt::wmma11(a.v, b.v, c.v, T == F16);
#else
  simt::split_k<HELD>(a.v, b.v, c.v, T == F16);
#endif
}
#else
typedef _Float16 halves __attribute__((ext_vector_type(HELD)));
typedef short shorts __attribute__((ext_vector_type(HELD)));
typedef short short_pair __attribute__((ext_vector_type(2)));
typedef float floats __attribute__((ext_vector_type(256 / WAVE)));
template <class V, class W> DEV V as(const W &w) { V v; __builtin_memcpy(&v, &w, sizeof v); return v; }
template <int T> DEV void multiply(Sums &c, const Operand &a, const Operand &b) {
  floats d = as<floats>(c);
#if TILE == 11
  if (T == F16) d = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(as<halves>(a), as<halves>(b), d);
  else d = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(as<shorts>(a), as<shorts>(b), d);
#elif TILE == 12
  if (T == F16) d = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(as<halves>(a), as<halves>(b), d);
  else d = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(as<shorts>(a), as<shorts>(b), d);
#else
  if (T == F16) d = __builtin_amdgcn_mfma_f32_16x16x16f16(as<halves>(a), as<halves>(b), d, 0, 0, 0);
#if defined(__gfx908__)  // products of 8 columns at a time; which ones is all the same, if both operands take the same
  else {
    shorts x = as<shorts>(a), y = as<shorts>(b);
    d = __builtin_amdgcn_mfma_f32_16x16x8bf16((short_pair){x[0], x[1]}, (short_pair){y[0], y[1]}, d, 0, 0, 0);
    d = __builtin_amdgcn_mfma_f32_16x16x8bf16((short_pair){x[2], x[3]}, (short_pair){y[2], y[3]}, d, 0, 0, 0);
  }
#else
  else d = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(as<shorts>(a), as<shorts>(b), d, 0, 0, 0);
#endif
#endif
  c = as<Sums>(d);
}
#endif
#else  // none: every lane multiplies rows as they lie
struct Operand { const u16 *s; u32 stride; };
DEV u32 tile_row(u32 l, u32 i) { return 256 / WAVE * (l / 16) + i; }
DEV u32 tile_col(u32 l, u32 i) { return l % 16; }
DEV Operand operand(const u16 *s, u32 stride) { return {s, stride}; }
template <int T> DEV void multiply(Sums &c, const Operand &a, const Operand &b) {
  u32 l = TID % WAVE;
  const u16 *col = b.s + tile_col(l, 0) * b.stride;
  // Not unrolled: widened operands of many tiles at once would not fit the registers.
  ONE_BY_ONE for (u32 k = 0; k < 16; k += 4) {
    u32x2 w = *(const u32x2 *)(col + k);
    UNROLL for (u32 i = 0; i < 256 / WAVE; i++) {
      u32x2 x = *(const u32x2 *)(a.s + tile_row(l, i) * a.stride + k);
      float s = fma_f(from16<T>((u16)x.x), from16<T>((u16)w.x), c.v[i]);
      s = fma_f(from16<T>((u16)(x.x >> 16)), from16<T>((u16)(w.x >> 16)), s);
      s = fma_f(from16<T>((u16)x.y), from16<T>((u16)w.y), s);
      c.v[i] = fma_f(from16<T>((u16)(x.y >> 16)), from16<T>((u16)(w.y >> 16)), s);
    }
  }
}
#endif

// The sum or the maximum of every row of a tile, in place of each of its numbers.
template <bool MAXIMUM> DEV float joined(float a, float b) { return MAXIMUM ? max_f(a, b) : a + b; }
template <bool MAXIMUM> DEV void along_rows(float *v) {
#if TILE == 80
  UNROLL for (int h = 0; h < 4; h += 2) {
    float a = joined<MAXIMUM>(joined<MAXIMUM>(v[h], v[h + 1]), joined<MAXIMUM>(v[h + 4], v[h + 5]));
    UNROLL for (u32 m = 1; m < 4; m *= 2) a = joined<MAXIMUM>(a, shfl_xor(a, m));
    v[h] = v[h + 1] = v[h + 4] = v[h + 5] = a;
  }
#else
  UNROLL for (int i = 0; i < 256 / WAVE; i++)
    UNROLL for (u32 m = 1; m < 16; m *= 2) v[i] = joined<MAXIMUM>(v[i], shfl_xor(v[i], m));
#endif
}
