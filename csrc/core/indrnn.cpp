#include "elementwise.hpp"

namespace fusedrnn {

template <class T>
ElementwiseCell<T> indrnn() {
  const KernelTable<T>& k = kernels<T>();
  return {k, 1, k.indrnn_forward, k.indrnn_backward};
}

template <class T>
void indrnn_forward(const ElementwiseForward<T>& p) {
  elementwise_forward(p, indrnn<T>());
}

template <class T>
void indrnn_backward(const ElementwiseBackward<T>& p) {
  elementwise_backward(p, indrnn<T>());
}

template <class T>
std::unique_ptr<Frozen<T>> frozen_indrnn(int64_t N, const ElementwiseForward<T>& p) {
  return std::make_unique<FrozenElementwise<T>>(N, p, indrnn<T>());
}

template void indrnn_forward(const ElementwiseForward<float>&);
template void indrnn_forward(const ElementwiseForward<double>&);
template void indrnn_backward(const ElementwiseBackward<float>&);
template void indrnn_backward(const ElementwiseBackward<double>&);
template std::unique_ptr<Frozen<float>> frozen_indrnn(int64_t, const ElementwiseForward<float>&);
template std::unique_ptr<Frozen<double>> frozen_indrnn(int64_t, const ElementwiseForward<double>&);

}  // namespace fusedrnn
