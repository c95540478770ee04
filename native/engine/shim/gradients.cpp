// Gradients for a given gradient of the output; tch knows those of scalars only.
#include <torch/csrc/autograd/autograd.h>

#include "guard.h"

using namespace oarlock;

extern "C" ok_status ok_gradients(ok_tensor output, ok_tensor grad, const ok_tensor *inputs, int64_t count,
                                  ok_tensor *grads) {
  return guarded([&] {
    torch::autograd::variable_list wanted;
    for (int64_t i = 0; i < count; ++i) wanted.push_back(tensor(inputs[i]));
    const auto found = torch::autograd::grad({tensor(output)}, wanted, {tensor(grad)}, /*retain_graph=*/true);
    for (int64_t i = 0; i < count; ++i) grads[i] = give(found[i]);
  });
}
