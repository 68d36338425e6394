// CMakeLists.txt compiles this file without exceptions: pthread_cleanup_push is then a jump, which any thread's end
// takes. With exceptions it would be a destructor, and whether that is called depends on who unwinds the stack: zig
// links an unwinder of its own, and glibc's would crash in it.
#include <Python.h>
#include <pthread.h>
#include <unistd.h>

#include "restore_thread.h"

namespace fastattn::bindings {
namespace {

void sleep_for_ever(void*) {
    for (;;) pause();
}

}  // namespace

void restore_thread(PyThreadState* state) {
    pthread_cleanup_push(sleep_for_ever, nullptr);
    PyEval_RestoreThread(state);
    pthread_cleanup_pop(0);
}

}  // namespace fastattn::bindings
