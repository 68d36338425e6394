// Arguments from Python that are no arrays.
#include <cmath>
#include <limits>

#include "arrays.h"

namespace fastattn::bindings {
namespace {

// Escapes what UTF-8 cannot encode.
std::string utf8(py::handle text) {
    Py_ssize_t size = 0;
    if (const char* const known = PyUnicode_AsUTF8AndSize(text.ptr(), &size))
        return {known, static_cast<std::size_t>(size)};
    PyErr_Clear();
    return py::reinterpret_steal<py::bytes>(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "backslashreplace"));
}

double number(const char* function, const char* argument, py::handle value) {
    const double x = PyFloat_AsDouble(value.ptr());
    if (x == -1.0 && PyErr_Occurred()) {
        const bool too_large = PyErr_ExceptionMatches(PyExc_OverflowError) && PyLong_Check(value.ptr());
        PyErr_Clear();
        if (too_large) return std::numeric_limits<double>::infinity();
        type_error(Where{function, argument}.str() + " must be a number, got " + type_name(value));
    }
    return x;
}

py::object index(const char* function, const char* argument, py::handle value) {
    PyObject* const exact = PyNumber_Index(value.ptr());
    if (!exact) {
        PyErr_Clear();
        type_error(Where{function, argument}.str() + " must be an integer, got " + type_name(value));
    }
    return py::reinterpret_steal<py::object>(exact);
}

}  // namespace

void value_error(const std::string& message) { throw py::value_error(message); }
void type_error(const std::string& message) { throw py::type_error(message); }

std::string type_name(py::handle object) { return shown(py::type::handle_of(object).attr("__name__")); }

double positive(const char* function, const char* argument, py::handle value) {
    const double x = number(function, argument, value);
    if (!(x > 0) || !std::isfinite(x))
        value_error(Where{function, argument}.str() + " must be positive and finite, got " + shown(value));
    return x;
}

double not_negative(const char* function, const char* argument, py::handle value) {
    const double x = number(function, argument, value);
    if (!(x >= 0) || !std::isfinite(x))
        value_error(Where{function, argument}.str() + " must be finite and not negative, got " + shown(value));
    return x;
}

double fraction(const char* function, const char* argument, py::handle value) {
    const double x = number(function, argument, value);
    if (!(x >= 0 && x < 1)) value_error(Where{function, argument}.str() + " must be in [0, 1), got " + shown(value));
    return x;
}

i64 integer(const char* function, const char* argument, py::handle value) {
    const i64 n = PyLong_AsLongLong(index(function, argument, value).ptr());
    if (n == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        value_error(Where{function, argument}.str() + " must fit into 64 bits, got " + shown(value));
    }
    return n;
}

Dropout dropout(const char* function, const char* p_name, py::handle p, py::handle seed) {
    const std::uint64_t bits = PyLong_AsUnsignedLongLong(index(function, "seed", seed).ptr());
    if (PyErr_Occurred()) {
        PyErr_Clear();
        value_error(Where{function, "seed"}.str() + " must be in [0, 2^64), got " + shown(seed));
    }
    return {fraction(function, p_name, p), bits};
}

std::string text(const char* function, const char* argument, py::handle value) {
    if (!py::isinstance<py::str>(value))
        type_error(Where{function, argument}.str() + " must be a string, got " + type_name(value));
    return utf8(value);
}

std::string shown(py::handle value) {
    constexpr std::size_t longest_shown = 200;
    const auto text = py::reinterpret_steal<py::object>(PyObject_Str(value.ptr()));
    if (!text) {  // such as an integer with more digits than Python prints
        PyErr_Clear();
        return std::string("a value of ") + Py_TYPE(value.ptr())->tp_name;
    }
    std::string result = utf8(text);
    if (result.size() <= longest_shown) return result;
    std::size_t end = longest_shown;
    while ((result[end] & 0xC0) == 0x80) --end;  // inside a character
    return result.substr(0, end) + " ...";
}

bool boolean(const char* function, const char* argument, py::handle value) {
    if (value.ptr() == Py_True || value.ptr() == Py_False) return value.ptr() == Py_True;
    const std::string type = Py_TYPE(value.ptr())->tp_name;
    if (type != "numpy.bool" && type != "numpy.bool_")
        type_error(Where{function, argument}.str() + " must be True or False, got " + type_name(value));
    return value.cast<bool>();
}

void bad_choice(const char* function, const char* argument, const std::string& got, const std::string& names) {
    value_error(Where{function, argument}.str() + " must be one of " + names + ", got '" + got + "'");
}

}  // namespace fastattn::bindings
