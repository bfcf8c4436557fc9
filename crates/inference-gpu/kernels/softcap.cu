// x = cap · tanh(x / cap)
KERNEL(256) softcap(float *x, u32 n, float cap) {
  u32 i = BID_X * 256 + TID;
  if (i < n) x[i] = cap * tanh_f(x[i] / cap);
}
