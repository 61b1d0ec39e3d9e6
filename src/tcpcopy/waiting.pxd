import cython

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <Python.h>
    #include <errno.h>
    #include <poll.h>
    #include <time.h>

    static long long tcpcopy_clock_now(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (long long)now.tv_sec * 1000000000LL + now.tv_nsec;
    }

    static struct timespec tcpcopy_timespec(long long ns) {
        struct timespec time;
        time.tv_sec = (time_t)(ns / 1000000000LL);
        time.tv_nsec = (long)(ns % 1000000000LL);
        return time;
    }

    static void tcpcopy_clock_nap(long long ns) {
        struct timespec time = tcpcopy_timespec(ns);
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&time, NULL);
        Py_END_ALLOW_THREADS
    }

    /* `table` holds `count` struct pollfd, `ready` a byte for each of them. */
    static int tcpcopy_wait_for(unsigned char *table, unsigned char *ready, Py_ssize_t count,
                                long long timeout_ns) {
        struct pollfd *polled = (struct pollfd *)(void *)table;
        struct timespec time = tcpcopy_timespec(timeout_ns < 0 ? 0 : timeout_ns);
        int found;
        Py_BEGIN_ALLOW_THREADS
        found = ppoll(polled, (nfds_t)count, timeout_ns < 0 ? NULL : &time, NULL);
        Py_END_ALLOW_THREADS
        for (Py_ssize_t place = 0; place < count; place++)
            ready[place] = found > 0 && polled[place].revents != 0;
        return found < 0 ? 0 : found;
    }
    """
    long long clock_now "tcpcopy_clock_now"() noexcept
    void clock_nap "tcpcopy_clock_nap"(long long ns) noexcept
    int c_wait_for "tcpcopy_wait_for"(
        unsigned char *table, unsigned char *ready, Py_ssize_t count, long long timeout_ns
    ) noexcept

cdef inline int wait_for(
    bytearray table, bytearray ready, Py_ssize_t count, long long timeout_ns
) noexcept:
    return c_wait_for(<unsigned char *>table, <unsigned char *>ready, count, timeout_ns)

cpdef long long monotonic_ns()
cpdef void nap(long long duration_ns) except *

cdef class Waiter:
    cdef list _descriptors
    cdef bytearray _ready
    cdef bytearray _table

    cpdef Py_ssize_t add(self, int descriptor) except -1
    cpdef void remove(self, Py_ssize_t place) except *
    cdef void _rebuild(self) except *
    cpdef int wait(self, long long timeout_ns) except -1
    cpdef bint is_ready(self, Py_ssize_t place) except *
