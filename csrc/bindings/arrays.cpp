#include "arrays.h"

#include <cstdlib>
#include <limits>

#include "../memory.h"

namespace fastattn::bindings {
namespace {

constexpr int type_bool = 0;      // NPY_BOOL
constexpr int type_float32 = 11;  // NPY_FLOAT
constexpr int type_float64 = 12;  // NPY_DOUBLE
constexpr i64 most_tokens = std::numeric_limits<std::int32_t>::max();
constexpr i64 most_elements = i64{1} << 44;  // in one array; a view that repeats its memory may claim more

bool matches(char kind, int type_num, i64 itemsize, Dtype dtype) {
    switch (dtype) {
        case Dtype::float32: return type_num == type_float32;
        case Dtype::float64: return type_num == type_float64;
        case Dtype::boolean: return type_num == type_bool;
        case Dtype::int32: return kind == 'i' && itemsize == 4;  // int, long and long long share sizes: go by kind
        case Dtype::int64: return kind == 'i' && itemsize == 8;
        case Dtype::int8: return kind == 'i' && itemsize == 1;
        case Dtype::uint16: return kind == 'u' && itemsize == 2;
    }
    return false;
}

const char* name_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::float32: return "float32";
        case Dtype::float64: return "float64";
        case Dtype::boolean: return "bool";
        case Dtype::int32: return "int32";
        case Dtype::int64: return "int64";
        case Dtype::int8: return "int8";
        case Dtype::uint16: return "uint16";
    }
    return "";
}

i64 size_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::boolean:
        case Dtype::int8: return 1;
        case Dtype::uint16: return 2;
        case Dtype::float64:
        case Dtype::int64: return 8;
        default: return 4;
    }
}

bool is_array(py::handle object) { return py::detail::npy_api::get().PyArray_Check_(object.ptr()); }

// A mask would be ignored. Other subclasses, such as memmap, are read as plain memory.
bool is_masked(py::handle array) {
    const py::handle plain(reinterpret_cast<PyObject*>(py::detail::npy_api::get().PyArray_Type_));
    return !py::type::handle_of(array).is(plain) &&
           py::isinstance(array, py::module_::import("numpy.ma").attr("MaskedArray"));
}

// The dtype is right and in native byte order.
bool has_dtype(py::handle object, Dtype dtype) {
    const auto* proxy = py::detail::array_proxy(object.ptr());
    const auto* descr = py::detail::array_descriptor_proxy(proxy->descr);
    return matches(descr->kind, descr->type_num, size_of(dtype), dtype) && descr->byteorder != '>' &&
           (dtype == Dtype::float32 || dtype == Dtype::float64 || dtype == Dtype::boolean ||
            py::reinterpret_borrow<py::array>(object).itemsize() == size_of(dtype));
}

}  // namespace

Shape::Shape(std::initializer_list<i64> axes) : ndim(static_cast<int>(axes.size())) {
    std::copy(axes.begin(), axes.end(), axes_);
}

Shape Shape::without_last() const {
    Shape result = *this;
    --result.ndim;
    return result;
}

Shape Shape::with_last(i64 n) const {
    Shape result = *this;
    result[ndim - 1] = n;
    return result;
}

std::string Shape::str() const {
    std::string text = "(";
    for (int i = 0; i < ndim; ++i) text += (i ? ", " : "") + std::to_string(axes_[i]);
    return text + (ndim == 1 ? ",)" : ")");
}

bool is_array_of(py::handle object, Dtype dtype) { return is_array(object) && has_dtype(object, dtype); }

Array array(const char* function, const char* argument, py::handle object, Dtype dtype) {
    Array a;
    a.where = {function, argument};
    if (!is_array(object))
        type_error(a.where.str() + " must be a NumPy array of " + name_of(dtype) + ", got " + type_name(object));
    if (!has_dtype(object, dtype))
        type_error(a.where.str() + " must be " + name_of(dtype) + ", got " + shown(object.attr("dtype")));
    if (is_masked(object)) type_error(a.where.str() + " must be a plain array, got a " + type_name(object));
    const auto* proxy = py::detail::array_proxy(object.ptr());
    if (proxy->nd > Shape::max_ndim)
        value_error(a.where.str() + " must have at most 8 axes, got " + std::to_string(proxy->nd));
    a.data = proxy->data;
    a.shape.ndim = proxy->nd;
    a.itemsize = size_of(dtype);
    bool aligned = reinterpret_cast<std::uintptr_t>(a.data) % static_cast<std::uintptr_t>(a.itemsize) == 0;
    i64 claimed = 1;  // NumPy has checked that this does not overflow
    for (int i = 0; i < a.shape.ndim; ++i) {
        a.shape[i] = proxy->dimensions[i];
        aligned = aligned && (proxy->strides[i] % a.itemsize == 0 || a.shape[i] <= 1);
        a.stride[i] = proxy->strides[i] / a.itemsize;
        claimed *= std::max<i64>(1, a.shape[i]);
    }
    const i64 most = a.size() > 0 ? most_elements : most_tokens;  // rows of no length are counted one by one
    if (claimed > most)
        value_error(a.where.str() + " must have at most " + std::to_string(most) +
                    (a.size() > 0 ? " elements" : " rows without elements") + ", got shape " + a.shape.str());
    if (!aligned) value_error(a.where.str() + " must be aligned to its item size");
    if (Pass* const pass = Pass::current()) pass->keep(object);
    return a;
}

bool is_list(py::handle object) { return py::isinstance<py::tuple>(object) || py::isinstance<py::list>(object); }

py::tuple items(const char* function, const char* argument, py::handle object) {
    if (!is_list(object))
        type_error(Where{function, argument}.str() + " must be a list or tuple, got " + type_name(object));
    return py::tuple(py::reinterpret_borrow<py::object>(object));
}

py::tuple items(const char* function, const char* argument, py::handle object, i64 least, i64 most,
                const char* reason) {
    py::tuple result = items(function, argument, object);
    const i64 count = static_cast<i64>(result.size());
    if (count < least || count > most)
        value_error(Where{function, argument}.str() + " must have " + std::to_string(least) +
                    (most > least ? " to " + std::to_string(most) : "") + " items" + reason + ", got " +
                    std::to_string(count));
    return result;
}

Array optional_array(const char* function, const char* argument, py::handle object, Dtype dtype) {
    if (object.is_none()) return Array{};
    return array(function, argument, object, dtype);
}

i64 Array::size() const {
    i64 n = 1;
    for (const i64 axis : shape) n *= axis;
    return n;
}

const Array& Array::expect_ndim(int wanted) const {
    if (shape.ndim != wanted)
        value_error(where.str() + " must have " + std::to_string(wanted) + (wanted == 1 ? " axis" : " axes") +
                    ", got shape " + shape.str());
    return *this;
}

const Array& Array::expect_shape(const Shape& wanted) const {
    if (!(shape == wanted)) value_error(where.str() + " must have shape " + wanted.str() + ", got " + shape.str());
    return *this;
}

const Array& Array::expect_contiguous_rows() const {
    if (shape.ndim == 0) value_error(where.str() + " must have at least one axis, got a scalar");
    if (last() > 1 && stride[shape.ndim - 1] != 1 && size() > 0)
        value_error(where.str() + " must be contiguous along its last axis, got strides of " +
                    std::to_string(stride[shape.ndim - 1]) + " elements");
    return *this;
}

bool Array::contiguous() const {
    if (size() == 0) return true;  // NumPy gives an array without elements strides of 0
    i64 step = 1;
    for (int i = shape.ndim - 1; i >= 0; --i) {
        if (shape[i] != 1 && stride[i] != step) return false;
        step *= shape[i];
    }
    return true;
}

const Array& Array::expect_contiguous() const {
    if (!contiguous())
        value_error(where.str() + " must be C-contiguous, got shape " + shape.str() + " with other strides");
    return *this;
}

i64 Array::rows() const {
    i64 n = 1;
    for (int i = 0; i + 1 < shape.ndim; ++i) n *= shape[i];
    return n;
}

i64 Array::row_stride() const {
    if (size() == 0) return last();
    i64 step = 0, rows = 0;  // of the innermost row axis longer than one, and the rows below the current axis
    for (int i = shape.ndim - 2; i >= 0; --i) {
        if (shape[i] == 1) continue;
        if (rows == 0) {
            step = stride[i];
            rows = shape[i];
        } else if (stride[i] == step * rows) {
            rows *= shape[i];
        } else {
            value_error(where.str() + " must have evenly spaced rows: its leading axes, of shape " +
                        shape.without_last().str() + ", cannot be merged into one");
        }
    }
    return rows == 0 ? last() : step;
}

void Array::bytes(const char** begin, const char** end) const {
    *begin = *end = data;
    for (int i = 0; i < shape.ndim; ++i) {
        if (shape[i] == 0) {
            *begin = *end = data;
            return;
        }
        const i64 extent = (shape[i] - 1) * stride[i] * itemsize;
        (extent < 0 ? *begin : *end) += extent;
    }
    *end += itemsize;
}

bool Array::overlaps(const Array& other) const {
    const char *b0, *e0, *b1, *e1;
    bytes(&b0, &e0);
    other.bytes(&b1, &e1);
    return b0 < e1 && b1 < e0;
}

bool Array::overlaps_itself() const {
    if (size() == 0) return false;
    for (int i = 0; i < shape.ndim; ++i) {
        const i64 step = std::abs(stride[i]);
        i64 reach = 1;  // elements from the first to the last of the axes with smaller strides
        for (int j = 0; j < shape.ndim; ++j) {
            const i64 smaller = std::abs(stride[j]);
            if (smaller < step || (smaller == step && j > i)) reach += (shape[j] - 1) * smaller;
        }
        if (shape[i] > 1 && step < reach) return true;
    }
    return false;
}

bool Array::interleaves(const Array& other) const {
    Array both = *this;  // with one more axis, over the two arrays
    if (!(shape == other.shape) || !std::equal(stride, stride + shape.ndim, other.stride)) return false;
    both.shape[shape.ndim] = 2;
    both.stride[shape.ndim] = (other.data - data) / itemsize;
    ++both.shape.ndim;
    return !both.overlaps_itself();
}

py::object new_floats(const Shape& shape, bool zeroed) {
    constexpr std::size_t worth_keeping = std::size_t{1} << 18;
    const std::vector<py::ssize_t> dims(shape.begin(), shape.end());
    py::ssize_t signed_bytes = sizeof(float);
    for (const py::ssize_t size : dims)
        if (__builtin_mul_overflow(signed_bytes, size, &signed_bytes)) {
            PyErr_SetString(PyExc_MemoryError, ("no memory for float32 of shape " + shape.str()).c_str());
            throw py::error_already_set();
        }
    const auto bytes = static_cast<std::size_t>(signed_bytes);
    Pass* const pass = Pass::current();
    if (pass) pass->make_room(signed_bytes);
    py::array_t<float> fresh;
    if (keeps_memory() && bytes >= worth_keeping) {
        auto* block = new Block(take_memory(bytes));
        const py::capsule owner(block, [](void* pointer) {
            const auto* block = static_cast<Block*>(pointer);
            give_memory(*block);
            delete block;
        });
        fresh = py::array_t<float>(dims, static_cast<float*>(block->data), owner);
    } else {
        fresh = py::array_t<float>(dims);
    }
    if (zeroed) std::memset(fresh.mutable_data(), 0, static_cast<std::size_t>(fresh.nbytes()));
    if (pass) {
        pass->keep(fresh);
        pass->poison(fresh.mutable_data(), bytes);
    }
    return std::move(fresh);
}

Output accumulator(const char* function, const char* argument, py::handle given, const Shape& shape) {
    if (!given.is_none()) return Output(function, argument, given, shape);
    return Output(function, argument, new_floats(shape, true), shape);
}

Output::Output(const char* function, const char* argument, py::handle given, const Shape& shape) {
    object = given.is_none() ? new_floats(shape) : py::reinterpret_borrow<py::object>(given);
    array_ = floats(function, argument, object);
    if (!given.is_none()) {
        array_.expect_shape(shape);
        if (!py::reinterpret_borrow<py::array>(given).writeable())
            value_error(array_.where.str() + " must be writable, got a read-only array");
        array_.expect_contiguous();
        if (Pass* const pass = Pass::current())
            pass->poison(data(), static_cast<std::size_t>(array_.size()) * sizeof(float));
    }
}

const Output& Output::apart_from(const Array& input, bool in_place) const {
    if (!input || !array_.overlaps(input)) return *this;
    if (in_place && array_.data == input.data && input.contiguous() && array_.size() == input.size()) return *this;
    value_error(array_.where.str() + " must not overlap " + input.where.argument);
}

Occupied::Occupied(std::initializer_list<const Array*> arrays) {
    arrays_.reserve(arrays.size() + 2);
    for (const Array* array : arrays) arrays_.push_back(*array);
}

float* Occupied::take(const Output& out) {
    for (const Array& array : arrays_) out.apart_from(array);
    arrays_.push_back(out.array());
    return out.data();
}

Copy<std::int32_t> cu_seqlens(const Array& array, i64 tokens, const char* what) {
    array.expect_ndim(1);
    if (array.shape[0] < 1) value_error(array.where.str() + " must have at least one element, got shape (0,)");
    const i64 batch = array.shape[0] - 1;
    if (tokens > most_tokens)
        value_error(array.where.str() + " must end at the number of " + what + ", which is at most " +
                    std::to_string(most_tokens) + ", got " + std::to_string(tokens) + " of them");
    std::int32_t last = std::numeric_limits<std::int32_t>::min(), before = 0;
    Copy<std::int32_t> values = checked_copy<std::int32_t>(
        array,
        [&](std::int32_t value) {
            before = last;
            last = value;
            return before <= value;
        },
        [&](std::int32_t value, i64 i) {
            value_error(array.where.str() + " must not decrease, got " + std::to_string(before) + " then " +
                        std::to_string(value) + " at index " + std::to_string(i));
        });
    if (values[0] != 0) value_error(array.where.str() + " must start at 0, got " + std::to_string(values[0]));
    if (values[batch] != tokens)
        value_error(array.where.str() + " must end at the number of " + what + ", " + std::to_string(tokens) +
                    ", got " + std::to_string(values[batch]));
    return values;
}

i64 longest(const std::int32_t* cu_seqlens, i64 batch) {
    i64 most = 0;
    for (i64 i = 0; i < batch; ++i) most = std::max<i64>(most, cu_seqlens[i + 1] - cu_seqlens[i]);
    return most;
}

Copy<i64> ids(const Array& array, i64 rows, const char* table) {
    return checked_copy<i64>(
        array, [&](i64 id) { return id >= 0 && id < rows; },
        [&](i64 id, i64 i) {
            value_error(array.where.str() + " must be in [0, " + std::to_string(rows) + "), the rows of " + table +
                        ", got " + std::to_string(id) + " at index " + std::to_string(i));
        });
}

}  // namespace fastattn::bindings
