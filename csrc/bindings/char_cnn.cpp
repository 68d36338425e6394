#include <deque>

#include "bindings.h"
#include "weight.h"

namespace fastattn::bindings {
namespace {

constexpr bool uses_tanh = true;
constexpr Choice<bool> activations[] = {{"relu", !uses_tanh}, {"tanh", uses_tanh}};
constexpr i64 most_chars = i64{1} << 24;  // argmax is computed in floats, which are exact up to here

// The checked arguments of both passes.
class Operands {
public:
    Operands(const char* f, py::handle char_ids_, py::handle embedding_, py::handle weights_, py::handle biases_,
             py::handle activation)
        : function(f),
          embedding(floats(f, "embedding", embedding_).expect_ndim(2).expect_contiguous_rows()),
          char_ids(array(f, "char_ids", char_ids_, Dtype::int64).expect_ndim(2)),
          occupied{&embedding, &char_ids},
          given_weights_(items(f, "weights", weights_)),
          given_biases_(as_many_as_weights("biases", biases_)) {
        if (dim() == 0)
            value_error(embedding.where.str() + " must have at least one column, got shape " + embedding.shape.str());
        if (chars() > most_chars)
            value_error(char_ids.where.str() + " must have at most " + std::to_string(most_chars) +
                        " characters a word, got shape " + char_ids.shape.str());
        ids_ = ids(char_ids, embedding.shape[0], "embedding");
        tanh_ = choose(f, "activation", activation, activations);
        convolutions.reset(new CharConvolution[given_weights_.size()]);
        for (std::size_t i = 0; i < given_weights_.size(); ++i) add_convolution(i);
    }

    i64 words() const { return char_ids.shape[0]; }
    i64 chars() const { return char_ids.shape[1]; }
    i64 dim() const { return embedding.shape[1]; }

    py::tuple as_many_as_weights(const char* argument, py::handle object) const {
        const i64 count = static_cast<i64>(given_weights_.size());
        return items(function, argument, object, count, count, ", as many as weights");
    }

    // weights[0], weights[1] ...: their names in messages, which live as long as the arrays
    const char* name(const char* list, std::size_t i) {
        names_.push_back(std::string(list) + "[" + std::to_string(i) + "]");
        return names_.back().c_str();
    }

    template <typename Args>
    void fill(Args& args) const {
        args.char_ids = ids_.get();
        args.embedding = embedding.as<float>();
        args.lde = embedding.row_stride();
        args.convolutions = convolutions.get();
        args.count = static_cast<i64>(weights.size());
        args.words = words();
        args.chars = chars();
        args.dim = dim();
        args.filters = filters;
        args.tanh = tanh_;
    }

    const char* function;
    Array embedding, char_ids;
    Occupied occupied;
    std::vector<Weight> weights;
    Copy<CharConvolution> convolutions;  // of each weight
    i64 filters = 0;

private:
    void add_convolution(std::size_t i) {
        const char* const weight_name = name("weights", i);
        Weight weight(function, weight_name, given_weights_[i], 1, 3);
        const Array& plain = weight.array;
        if (weight.is_packed() && weight.k % dim() != 0)
            value_error(Where{function, weight_name}.str() + " must be packed with width * " + std::to_string(dim()) +
                        " columns, got " + std::to_string(weight.k));
        if (plain) plain.expect_shape({plain.shape[0], plain.shape[1], dim()});
        CharConvolution convolution{};
        convolution.width = weight.k / dim();
        convolution.filters = weight.n;
        convolution.column = filters;
        if (convolution.width < 1 || convolution.width > chars())
            value_error(Where{function, weight_name}.str() + " must have a width from 1 to " + std::to_string(chars()) +
                        ", the characters of a word, got " + std::to_string(convolution.width));
        const Array bias = floats(function, name("biases", i), given_biases_[i]);
        convolution.bias = bias.expect_shape({weight.n}).expect_contiguous().as<float>();
        occupied.add(plain);
        occupied.add(bias);
        filters += weight.n;
        convolutions[i] = convolution;
        weights.push_back(std::move(weight));
    }

    py::tuple given_weights_, given_biases_;
    Copy<i64> ids_;
    std::deque<std::string> names_;  // a deque's elements do not move
    bool tanh_ = false;
};

py::object char_cnn(py::handle char_ids, py::handle embedding, py::handle weights, py::handle biases,
                    py::handle activation, py::handle return_argmax_, py::handle out_) {
    const char* const f = "char_cnn";
    Operands operands(f, char_ids, embedding, weights, biases, activation);
    CharCnnForward args{};
    operands.fill(args);
    const Output out(f, "out", out_, {args.words, args.filters});
    args.y = operands.occupied.take(out);
    const bool return_argmax = boolean(f, "return_argmax", return_argmax_);
    py::object argmax;
    if (return_argmax) {
        py::array_t<std::int32_t> places({args.words, args.filters});
        args.argmax = places.mutable_data();
        argmax = std::move(places);
    }
    bool at_once = return_argmax;
    for (std::size_t i = 0; i < operands.weights.size(); ++i) {
        operands.convolutions[i].panels = operands.weights[i].panels();
        at_once = at_once || operands.weights[i].has_own_panels();
    }
    at_once ? compute_now(&KernelTable::char_cnn_forward, args) : compute(&KernelTable::char_cnn_forward, args);
    if (return_argmax) return py::make_tuple(out.object, argmax);
    return out.object;
}

Copy<std::int32_t> checked_places(const Array& argmax, const Operands& operands) {
    std::vector<i64> last;  // of each filter
    for (std::size_t i = 0; i < operands.weights.size(); ++i) {
        const CharConvolution& convolution = operands.convolutions[i];
        last.insert(last.end(), static_cast<std::size_t>(convolution.filters), operands.chars() - convolution.width);
    }
    const i64* limit = last.data();
    return checked_copy<std::int32_t>(
        argmax,
        [&](std::int32_t place) {
            if (place < 0 || place > *limit) return false;
            if (++limit == last.data() + last.size()) limit = last.data();
            return true;
        },
        [&](std::int32_t place, i64 i) {
            value_error(argmax.where.str() + " must be in [0, " + std::to_string(*limit + 1) +
                        "), the positions of width " + std::to_string(operands.chars() - *limit) + ", got " +
                        std::to_string(place) + " at index " + Shape{i / operands.filters, i % operands.filters}.str());
        });
}

py::object char_cnn_backward(py::handle dy_, py::handle char_ids, py::handle embedding, py::handle weights,
                             py::handle biases, py::handle y_, py::handle argmax_, py::handle activation,
                             py::handle need_dembedding, py::handle need_dweights, py::handle need_dbiases,
                             py::handle dembedding_, py::handle dweights_, py::handle dbiases_) {
    const char* const f = "char_cnn_backward";
    Operands operands(f, char_ids, embedding, weights, biases, activation);
    CharCnnBackward args{};
    operands.fill(args);
    const Array dy = floats(f, "dy", dy_).expect_shape({args.words, args.filters}).expect_contiguous_rows();
    const Array y = floats(f, "y", y_).expect_shape(dy.shape).expect_contiguous_rows();
    const Array argmax = array(f, "argmax", argmax_, Dtype::int32).expect_shape(dy.shape).expect_contiguous();
    const Copy<std::int32_t> places = checked_places(argmax, operands);
    args.dy = dy.as<float>();
    args.lddy = dy.row_stride();
    args.y = y.as<float>();
    args.ldy = y.row_stride();
    args.argmax = places.get();
    for (const Array* array : {&dy, &y, &argmax}) operands.occupied.add(*array);

    py::object dembedding = py::none(), dweights = py::none(), dbiases = py::none();
    const std::size_t count = operands.weights.size();
    if (boolean(f, "need_dembedding", need_dembedding)) {
        const Output out = accumulator(f, "dembedding", dembedding_, operands.embedding.shape);
        args.dembedding = operands.occupied.take(out);
        dembedding = out.object;
        for (std::size_t i = 0; i < count; ++i) operands.convolutions[i].weight = operands.weights[i].contiguous();
    }
    // A gradient for each convolution, added to that of a list.
    const auto gradients = [&](const char* argument, py::handle list, float* CharConvolution::* gradient,
                               const auto& shape_of) {
        const bool is_given = !list.is_none();
        const py::tuple given = is_given ? operands.as_many_as_weights(argument, list) : py::tuple();
        py::tuple result(count);
        for (std::size_t i = 0; i < count; ++i) {
            CharConvolution& convolution = operands.convolutions[i];
            const py::object one = is_given ? py::object(given[i]) : py::none();
            const Output out = accumulator(f, operands.name(argument, i), one, shape_of(convolution));
            convolution.*gradient = operands.occupied.take(out);
            result[i] = out.object;
        }
        return result;
    };
    if (boolean(f, "need_dweights", need_dweights))
        dweights = gradients("dweights", dweights_, &CharConvolution::dweight, [&](const CharConvolution& convolution) {
            return Shape{convolution.filters, convolution.width, args.dim};
        });
    if (boolean(f, "need_dbiases", need_dbiases))
        dbiases = gradients("dbiases", dbiases_, &CharConvolution::dbias,
                            [](const CharConvolution& convolution) { return Shape{convolution.filters}; });
    compute_now(&KernelTable::char_cnn_backward, args);
    return py::make_tuple(dembedding, dweights, dbiases);
}

}  // namespace

void bind_char_cnn(py::module_& m) {
    m.def("char_cnn", &char_cnn);
    m.def("char_cnn_backward", &char_cnn_backward);
}

}  // namespace fastattn::bindings
