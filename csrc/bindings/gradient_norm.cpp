#include <algorithm>
#include <cmath>

#include "bindings.h"

namespace fastattn::bindings {
namespace {

constexpr i64 piece = 16384;  // floats whose sum is added to the others as one term

double gradient_norm(py::handle gradients) {
    const char* const f = "gradient_norm";
    std::vector<GradientNormForward::Piece> pieces;
    const py::tuple arrays = items(f, "gradients", gradients);
    for (std::size_t i = 0; i < arrays.size(); ++i) {
        const std::string name = "gradients[" + std::to_string(i) + "]";
        const Array gradient = floats(f, name.c_str(), arrays[i]).expect_contiguous();
        for (i64 begin = 0, size = gradient.size(); begin < size; begin += piece)
            pieces.push_back({gradient.as<float>() + begin, std::min(piece, size - begin)});
    }
    std::vector<double> sums(pieces.size());
    const GradientNormForward args{sums.data(), pieces.data(), static_cast<i64>(pieces.size())};
    compute_now(&KernelTable::gradient_norm_forward, args);
    double total = 0;
    for (const double sum : sums) total += sum;
    return std::sqrt(total);
}

}  // namespace

void bind_gradient_norm(py::module_& m) { m.def("gradient_norm", &gradient_norm); }

}  // namespace fastattn::bindings
