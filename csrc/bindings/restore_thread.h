// PyEval_RestoreThread, except that in a process that is ending the thread sleeps, as from Python 3.14 on, and is not
// ended: its stack holds objects that can no longer be given back.
#pragma once

#include <Python.h>

namespace fastattn::bindings {

void restore_thread(PyThreadState* state);

}
