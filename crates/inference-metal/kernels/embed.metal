struct Embed { uint cols, stride, shift; float scale; };

// y[r] = scale · W[tokens[r]]; a threadgroup for each token.
KERNEL(256) embed(device float *y [[buffer(0)]], device const uint *w [[buffer(1)]], device const uint *scales [[buffer(2)]],
                  device const uint *biases [[buffer(3)]], device const uint *tokens [[buffer(4)]], constant Embed &a [[buffer(5)]],
                  PLACE) {
  const uint token = tokens[group.x];
  for (uint k = (wave * WAVE + lane) * 16; k < a.cols; k += 256 * 16) {
    const Sixteen held = fetch(MATRIX(w, scales, biases, a.stride, a.shift), token, k);
    UNROLL for (uint half_of = 0; half_of < 2; half_of++) {
      float v[8];
      unpack(held, half_of, v);
      UNROLL for (uint i = 0; i < 8; i++) {
        const uint c = k + 8 * half_of + i;
        if (c < a.cols) y[(ulong)group.x * a.cols + c] = a.scale * weight(held, v[i]);
      }
    }
  }
}
