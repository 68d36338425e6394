// The border: every check of an array from Python is here, and every message names the function, the argument and its
// value. Nothing is cast and nothing is copied.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "../denormals.h"
#include "../dispatch.h"
#include "../parallel.h"
#include "pass.h"

namespace fastattn::bindings {

namespace py = pybind11;

struct Where {  // the argument that a message is about
    const char* function;
    const char* argument;
    std::string str() const { return std::string(function) + ": " + argument; }
};

[[noreturn]] void value_error(const std::string& message);
[[noreturn]] void type_error(const std::string& message);

class Shape {
public:
    static constexpr int max_ndim = 8;

    Shape() = default;
    Shape(std::initializer_list<i64> axes);
    Shape with_last(i64 n) const;  // instead of the last axis
    Shape without_last() const;
    bool operator==(const Shape& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }
    i64& operator[](int axis) { return axes_[axis]; }
    i64 operator[](int axis) const { return axes_[axis]; }
    const i64* begin() const { return axes_; }
    const i64* end() const { return axes_ + ndim; }
    std::string str() const;  // (2, 3)

    int ndim = 0;

private:
    i64 axes_[max_ndim];
};

// A checked array: right dtype, native byte order, aligned. Strides count elements.
class Array {
public:
    Where where;
    char* data = nullptr;
    Shape shape;
    i64 stride[Shape::max_ndim];
    i64 itemsize = 0;

    explicit operator bool() const { return data != nullptr; }
    template <typename T>
    T* as() const {
        return reinterpret_cast<T*>(data);
    }
    i64 last() const { return shape.ndim ? shape[shape.ndim - 1] : 1; }
    i64 size() const;

    const Array& expect_ndim(int wanted) const;
    const Array& expect_shape(const Shape& wanted) const;
    const Array& expect_contiguous_rows() const;  // the last axis
    const Array& expect_contiguous() const;
    bool contiguous() const;
    i64 rows() const;        // product of all axes but the last
    i64 row_stride() const;  // when those axes form one evenly spaced axis; ValueError otherwise
    bool overlaps(const Array& other) const;
    bool overlaps_itself() const;                // or its axes interleave, which counts as overlap
    bool interleaves(const Array& other) const;  // as views of one array do; false where this is hard to tell
    void bytes(const char** begin, const char** end) const;  // from the first to behind the last
};

// The rows of x that a kernel iterates over.
template <typename Args>
void set_rows(Args& args, const Array& x) {
    args.x = x.as<float>();
    args.rows = x.rows();
    args.dim = x.last();
    args.ldx = x.row_stride();
}

enum class Dtype { float32, float64, int8, int32, int64, uint16, boolean };

Array array(const char* function, const char* argument, py::handle object, Dtype dtype);
Array optional_array(const char* function, const char* argument, py::handle object, Dtype dtype);  // None: false
inline Array floats(const char* function, const char* argument, py::handle object) {
    return array(function, argument, object, Dtype::float32);
}
inline Array optional_floats(const char* function, const char* argument, py::handle object) {
    return optional_array(function, argument, object, Dtype::float32);
}
bool is_array_of(py::handle object, Dtype dtype);

// The items of a list or tuple, `least` to `most` of them. The caller holds the result until the kernel is done: if
// another thread replaces an item of the list, nothing else keeps the array that the kernel reads alive.
bool is_list(py::handle object);
py::tuple items(const char* function, const char* argument, py::handle object);
py::tuple items(const char* function, const char* argument, py::handle object, i64 least, i64 most,
                const char* reason = "");

// A result: `given` (checked: float32, writable, contiguous, right shape) or, when it is None, a new array.
class Output {
public:
    Output(const char* function, const char* argument, py::handle given, const Shape& shape);
    // The result must not overlap `input`, unless `in_place` allows it to be exactly the input's memory.
    const Output& apart_from(const Array& input, bool in_place = false) const;
    float* data() const { return array_.as<float>(); }
    const Array& array() const { return array_; }
    py::object object;

private:
    Array array_;
};

// A gradient: `given`, to which the kernel adds, or a new array of zeros.
Output accumulator(const char* function, const char* argument, py::handle given, const Shape& shape);

// What a call reads and writes. A result must not overlap any of it, and belongs to it once taken.
class Occupied {
public:
    Occupied(std::initializer_list<const Array*> arrays);
    void add(const Array& array) { arrays_.push_back(array); }
    float* take(const Output& out);

private:
    std::vector<Array> arrays_;
};

py::object new_floats(const Shape& shape, bool zeroed = false);
inline float* data_of(const py::object& array) {
    return reinterpret_cast<float*>(py::detail::array_proxy(array.ptr())->data);
}

// Numbers that a kernel uses as indices. They are copied while they are checked: the array may change at any time.
// A pass keeps them until its kernels are computed.
struct Release {
    template <typename T>
    void operator()(T* memory) const {
        const auto free = [](void* memory) { delete[] static_cast<T*>(memory); };
        if (Pass* const pass = Pass::current())
            pass->keep(memory, free);
        else
            free(memory);
    }
};
template <typename T>
using Copy = std::unique_ptr<T[], Release>;

// Copies a contiguous array in one pass. For the first value that is not is_good, refuse(value, its index) throws.
template <typename T, typename IsGood, typename Refuse>
Copy<T> checked_copy(const Array& array, const IsGood& is_good, const Refuse& refuse) {
    array.expect_contiguous();
    const i64 n = array.size();
    Copy<T> copy(new T[static_cast<std::size_t>(n)]);
    const T* const from = array.as<T>();
    T* const to = copy.get();
    for (i64 i = 0; i < n; ++i) {
        const T value = __atomic_load_n(from + i, __ATOMIC_RELAXED);
        if (!is_good(value)) refuse(value, i);
        to[i] = value;
    }
    return copy;
}

// [batch + 1], int32, starting at 0, never decreasing, ending at `tokens`, the number of `what`.
Copy<std::int32_t> cu_seqlens(const Array& array, i64 tokens, const char* what = "tokens");
i64 longest(const std::int32_t* cu_seqlens, i64 batch);

// Every id in [0, rows) of `table`.
Copy<i64> ids(const Array& array, i64 rows, const char* table);

double positive(const char* function, const char* argument, py::handle value);      // finite and > 0
double not_negative(const char* function, const char* argument, py::handle value);  // finite and >= 0
double fraction(const char* function, const char* argument, py::handle value);      // in [0, 1)
i64 integer(const char* function, const char* argument, py::handle value);
bool boolean(const char* function, const char* argument, py::handle value);  // Python's or NumPy's
Dropout dropout(const char* function, const char* p_name, py::handle p, py::handle seed);
template <typename Enum>
struct Choice {
    const char* name;
    Enum value;
};
std::string text(const char* function, const char* argument, py::handle value);
std::string shown(py::handle value);  // its str(), for a message
std::string type_name(py::handle object);
[[noreturn]] void bad_choice(const char* function, const char* argument, const std::string& got,
                             const std::string& names);
template <typename Enum, std::size_t N>
Enum choose(const char* function, const char* argument, py::handle value, const Choice<Enum> (&choices)[N]) {
    const std::string got = text(function, argument, value);
    std::string names;
    for (const auto& choice : choices) {
        if (got == choice.name) return choice.value;
        names += (names.empty() ? "'" : ", '") + std::string(choice.name) + "'";
    }
    bad_choice(function, argument, got, names);
}

// Refuses an object that was made by __new__ alone: its C++ object is uninitialised memory.
template <typename T>
struct InitializedCaster : py::detail::type_caster_base<T> {
    bool load(py::handle object, bool convert) {
        if (!py::detail::type_caster_base<T>::load(object, convert)) return false;
        if (!reinterpret_cast<py::detail::instance*>(object.ptr())->get_value_and_holder().holder_constructed())
            type_error(std::string(Py_TYPE(object.ptr())->tp_name) + " was made without its __init__");
        return true;
    }
};

// The pass's, or the table in use.
inline const KernelTable& kernels_of_call() {
    const Pass* const pass = Pass::current();
    return pass ? pass->kernels() : kernels();
}

// Runs call(kernel, &args) without the lock, after the kernels of the pass so far.
template <typename Args>
void compute_now(KernelCall call, AnyKernel kernel, const Args& args) {
    Pass* const pass = Pass::current();
    if (pass) pass->run();
    without_lock([&] {
        const FlushDenormals flush;  // what a kernel does between its loops, too
        if (!pass) return run_kernel(call, kernel, &args);
        const Together together(pass->threads());
        run_kernel(call, kernel, &args);
    });
}
// Runs a kernel of the call's table.
template <typename Args>
void compute_now(void (*KernelTable::*kernel)(const Args&), const Args& args) {
    compute_now(&call_kernel<Args>, reinterpret_cast<AnyKernel>(kernels_of_call().*kernel), args);
}

// Runs a kernel of the call's table without the lock: at once, or with the others of a pass. Everything that the
// arguments point to is an array, or a Copy, or outlives the pass.
template <typename Args>
void compute(void (*KernelTable::*kernel)(const Args&), const Args& args) {
    if (Pass* const pass = Pass::current()) return pass->add(pass->kernels().*kernel, args);
    compute_now(kernel, args);
}
}  // namespace fastattn::bindings
