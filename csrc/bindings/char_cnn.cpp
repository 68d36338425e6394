#include <deque>

#include "../packing.h"
#include "bindings.h"

namespace fastattn::bindings {
namespace {

constexpr bool uses_tanh = true;
constexpr Choice<bool> activations[] = {{"relu", !uses_tanh}, {"tanh", uses_tanh}};
constexpr i64 most_chars = i64{1} << 24;  // their numbers are exact as floats, which argmax is computed in

class Names {  // weights[0], weights[1] ...: what messages call them, for as long as an Array may make one
public:
    const char* operator()(const char* list, std::size_t i) {
        names_.push_back(std::string(list) + "[" + std::to_string(i) + "]");
        return names_.back().c_str();
    }

private:
    std::deque<std::string> names_;  // whose elements stay where they are
};

py::tuple items(const char* f, const char* argument, py::handle object) {
    if (!py::isinstance<py::list>(object) && !py::isinstance<py::tuple>(object))
        type_error(Where{f, argument}.str() + " must be a list or tuple, got " +
                   std::string(py::str(py::type::handle_of(object).attr("__name__"))));
    return py::tuple(py::reinterpret_borrow<py::object>(object));
}

py::tuple as_many_as_weights(const char* f, const char* argument, py::handle object, std::size_t count) {
    const py::tuple list = items(f, argument, object);
    if (list.size() != count)
        value_error(Where{f, argument}.str() + " must have " + std::to_string(count) +
                    " items, as many as weights, got " + std::to_string(list.size()));
    return list;
}

// What both passes take, checked.
struct Operands {
    Operands(const char* f, py::handle char_ids_, py::handle embedding_, py::handle weights_, py::handle biases_,
             py::handle activation)
        : weights(items(f, "weights", weights_)), biases(as_many_as_weights(f, "biases", biases_, weights.size())) {
        const Array embedding = floats(f, "embedding", embedding_).expect_ndim(2).expect_contiguous_rows();
        const Array char_ids = array(f, "char_ids", char_ids_, Dtype::int64).expect_ndim(2);
        dim = embedding.shape[1];
        words = char_ids.shape[0];
        chars = char_ids.shape[1];
        if (dim == 0)
            value_error(embedding.where.str() + " must have at least one column, got shape " + embedding.shape_str());
        if (chars > most_chars)
            value_error(char_ids.where.str() + " must have at most " + std::to_string(most_chars) +
                        " characters a word, got shape " + char_ids.shape_str());
        ids_ = ids(char_ids, embedding.shape[0], "embedding");
        characters = embedding.shape[0];
        tanh = choose(f, "activation", activation, activations);
        inputs = {embedding, char_ids};
        for (std::size_t i = 0; i < weights.size(); ++i) {
            convolutions.push_back(convolution(f, i));
            filters += convolutions.back().filters;
        }
    }

    CharConvolution convolution(const char* f, std::size_t i) {
        const char* const name = names("weights", i);
        CharConvolution result{};
        result.column = filters;
        if (py::isinstance<PackedMatrix>(weights[i])) {
            const auto& packed = weights[i].cast<const PackedMatrix&>();
            if (packed.groups() != 1)
                value_error(Where{f, name}.str() + " must be packed with groups=1, got " +
                            std::to_string(packed.groups()));
            if (packed.k() % dim != 0)
                value_error(Where{f, name}.str() + " must be packed with width * " + std::to_string(dim) +
                            " columns, got " + std::to_string(packed.k()));
            result.panels = packed.panels();
            result.filters = packed.n();
            result.width = packed.k() / dim;
        } else {
            const Array weight = floats(f, name, weights[i]).expect_ndim(3).expect_contiguous();
            if (weight.shape[2] != dim) weight.expect_shape({weight.shape[0], weight.shape[1], dim});
            result.weight = weight.as<float>();
            result.filters = weight.shape[0];
            result.width = weight.shape[1];
            inputs.push_back(weight);
        }
        if (result.width < 1 || result.width > chars)
            value_error(Where{f, name}.str() + " must have a width from 1 to " + std::to_string(chars) +
                        ", the characters of a word, got " + std::to_string(result.width));
        inputs.push_back(floats(f, names("biases", i), biases[i]).expect_shape({result.filters}).expect_contiguous());
        result.bias = inputs.back().as<float>();
        return result;
    }

    template <typename Args>
    void fill(Args& args) const {
        args.char_ids = ids_;
        args.embedding = inputs[0].as<float>();
        args.lde = inputs[0].row_stride();
        args.convolutions = convolutions.data();
        args.words = words;
        args.chars = chars;
        args.dim = dim;
        args.filters = filters;
        args.count = static_cast<i64>(convolutions.size());
        args.tanh = tanh;
    }

    // An output may overlap no input, nor an output before it.
    float* take(const Output& out) {
        for (const Array& input : inputs) out.apart_from(input);
        inputs.push_back(out.array());
        return out.data();
    }

    Names names;
    py::tuple weights, biases;
    std::vector<Array> inputs;
    std::vector<CharConvolution> convolutions;
    i64 words, chars, dim, characters, filters = 0;
    bool tanh;

private:
    const i64* ids_;
};

py::object char_cnn(py::handle char_ids, py::handle embedding, py::handle weights, py::handle biases,
                    py::handle activation, bool return_argmax, py::handle out_) {
    const char* const f = "char_cnn";
    Operands operands(f, char_ids, embedding, weights, biases, activation);
    CharCnnForward args{};
    operands.fill(args);
    const i64 shape[] = {operands.words, operands.filters};
    const Output out(f, "out", out_, shape, 2);
    args.y = operands.take(out);
    py::object argmax;
    if (return_argmax) {
        py::array_t<std::int32_t> places({shape[0], shape[1]});
        args.argmax = places.mutable_data();
        argmax = std::move(places);
    }
    compute(&KernelTable::char_cnn_forward, args);
    if (return_argmax) return py::make_tuple(out.object, argmax);
    return out.object;
}

void check_argmax(const Array& argmax, const Operands& operands) {
    const auto* places = argmax.as<std::int32_t>();
    for (i64 word = 0; word < operands.words; ++word)
        for (const CharConvolution& convolution : operands.convolutions)
            for (i64 i = convolution.column; i < convolution.column + convolution.filters; ++i) {
                const i64 place = places[word * operands.filters + i], last = operands.chars - convolution.width;
                if (place < 0 || place > last)
                    value_error(argmax.where.str() + " must be in [0, " + std::to_string(last + 1) +
                                "), the positions of width " + std::to_string(convolution.width) + ", got " +
                                std::to_string(place) + " at index (" + std::to_string(word) + ", " +
                                std::to_string(i) + ")");
            }
}

py::object char_cnn_backward(py::handle dy_, py::handle char_ids, py::handle embedding, py::handle weights,
                             py::handle biases, py::handle y_, py::handle argmax_, py::handle activation,
                             bool need_dembedding, bool need_dweights, bool need_dbiases, py::handle dembedding_,
                             py::handle dweights_, py::handle dbiases_) {
    const char* const f = "char_cnn_backward";
    Operands operands(f, char_ids, embedding, weights, biases, activation);
    const std::size_t count = operands.convolutions.size();
    CharCnnBackward args{};
    operands.fill(args);
    const Array dy = floats(f, "dy", dy_).expect_shape({operands.words, operands.filters}).expect_contiguous_rows();
    const Array y = floats(f, "y", y_).expect_shape_of(dy).expect_contiguous_rows();
    const Array argmax = array(f, "argmax", argmax_, Dtype::int32).expect_shape_of(dy).expect_contiguous();
    check_argmax(argmax, operands);
    args.dy = dy.as<float>();
    args.lddy = dy.row_stride();
    args.y = y.as<float>();
    args.ldy = y.row_stride();
    args.argmax = argmax.as<std::int32_t>();
    operands.inputs.insert(operands.inputs.end(), {dy, y, argmax});

    py::object dembedding = py::none(), dweights = py::none(), dbiases = py::none();
    std::vector<py::object> unpacked;
    if (need_dembedding) {
        const i64 shape[] = {operands.characters, operands.dim};
        const Output out = accumulator(f, "dembedding", dembedding_, shape, 2);
        args.dembedding = operands.take(out);
        dembedding = out.object;
        for (std::size_t i = 0; i < count; ++i) {
            CharConvolution& convolution = operands.convolutions[i];
            if (!convolution.panels) continue;
            const i64 plain[] = {convolution.filters, convolution.width * operands.dim};
            unpacked.push_back(new_floats(plain, 2));
            operands.weights[i].cast<const PackedMatrix&>().unpack(data_of(unpacked.back()));
            convolution.weight = data_of(unpacked.back());
        }
    }
    const auto gradients = [&](const char* list, py::handle given_, bool of_biases) {
        py::tuple given;
        if (!given_.is_none()) given = as_many_as_weights(f, list, given_, count);
        py::tuple result(count);
        for (std::size_t i = 0; i < count; ++i) {
            CharConvolution& convolution = operands.convolutions[i];
            const i64 shape[] = {convolution.filters, convolution.width, operands.dim};
            const py::object one = given_.is_none() ? py::none() : py::object(given[i]);
            const Output out = accumulator(f, operands.names(list, i), one, shape, of_biases ? 1 : 3);
            (of_biases ? convolution.dbias : convolution.dweight) = operands.take(out);
            result[i] = out.object;
        }
        return result;
    };
    if (need_dweights) dweights = gradients("dweights", dweights_, false);
    if (need_dbiases) dbiases = gradients("dbiases", dbiases_, true);
    compute(&KernelTable::char_cnn_backward, args);
    return py::make_tuple(dembedding, dweights, dbiases);
}

}  // namespace

void bind_char_cnn(py::module_& m) {
    m.def("char_cnn", &char_cnn);
    m.def("char_cnn_backward", &char_cnn_backward);
}

}  // namespace fastattn::bindings
