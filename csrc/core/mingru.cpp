#include "elementwise.hpp"

namespace fusedrnn {

template <class T>
ElementwiseCell<T> mingru() {
  const KernelTable<T>& k = kernels<T>();
  return {k, 2, k.mingru_forward, k.mingru_backward};
}

template <class T>
void mingru_forward(const ElementwiseForward<T>& p) {
  elementwise_forward(p, mingru<T>());
}

template <class T>
void mingru_backward(const ElementwiseBackward<T>& p) {
  elementwise_backward(p, mingru<T>());
}

template <class T>
std::unique_ptr<Frozen<T>> frozen_mingru(int64_t N, const ElementwiseForward<T>& p) {
  return std::make_unique<FrozenElementwise<T>>(N, p, mingru<T>());
}

template void mingru_forward(const ElementwiseForward<float>&);
template void mingru_forward(const ElementwiseForward<double>&);
template void mingru_backward(const ElementwiseBackward<float>&);
template void mingru_backward(const ElementwiseBackward<double>&);
template std::unique_ptr<Frozen<float>> frozen_mingru(int64_t, const ElementwiseForward<float>&);
template std::unique_ptr<Frozen<double>> frozen_mingru(int64_t, const ElementwiseForward<double>&);

}  // namespace fusedrnn
