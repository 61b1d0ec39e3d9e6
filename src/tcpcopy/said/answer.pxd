import cython

cdef Py_ssize_t _LOOKED_AT
cdef int _NONE
cdef int _OTHER
cdef int _HTTP_1XX
cdef int _HTTP_101
cdef int _GREETING
cdef int _MYSQL_GREETING
cdef int _TLS_ENCRYPTED
cdef int _TLS_CLOSE
cdef int _TLS_WARNING
cdef int _DNS_RCODE
cdef int _UNKNOWN
cdef int _HTTP
cdef int _RESP
cdef int _MYSQL
cdef int _POSTGRESQL
cdef int _TLS
cdef int _DNS
cdef int _RESP_ERROR
cdef int _MYSQL_ERROR
cdef int _POSTGRESQL_ERROR
cdef int _POSTGRESQL_FATAL
cdef int _TLS_FATAL
cdef Py_ssize_t _LONGEST_WORD
cdef int _MOST_MESSAGES
cdef int _LONGEST_ERROR
cdef int _LONGEST_STARTUP
cdef dict _WORDS
cdef int _OTHER_WORD
cdef dict _NUMBERS
cdef int _OTHER_NUMBER
cdef dict _CLASSES
cdef int _OTHER_CLASS
cdef dict _ALERTS
cdef int _OTHER_ALERT
cdef tuple _METHODS
cdef frozenset _BEFORE_ERROR
cdef frozenset _COMMANDS
cdef int _RESP_REPLY
cdef int _MYSQL_REPLY
cdef int _POSTGRESQL_REPLY
cdef int _TLS_RECORD

@cython.locals(size=cython.Py_ssize_t, first=cython.int, kind=cython.int, length=cython.int)
cpdef int kind_of(bytes data) except -1
@cython.locals(at=cython.Py_ssize_t, kind=cython.int, hundreds=cython.int, ends=cython.Py_ssize_t)
cdef int _http(bytes data) except -1
cdef bint _is_status_line(bytes data, Py_ssize_t at) except *
@cython.locals(start=cython.Py_ssize_t, end=cython.Py_ssize_t, most=cython.Py_ssize_t)
cdef int _resp(bytes data) except -1
cdef int _alert(bytes data) except -1
@cython.locals(length=cython.int, number=cython.int)
cdef int _mysql(bytes data) except -1
@cython.locals(size=cython.Py_ssize_t, at=cython.Py_ssize_t, length=cython.Py_ssize_t)
cdef int _postgresql(bytes data) except -1
@cython.locals(base=cython.int, code=cython.int, end=cython.Py_ssize_t)
cdef int _error_response(bytes data, Py_ssize_t at) except -1
cpdef int dns_kind(bytes data) except -1
cpdef bint is_dns_query(bytes data) except *
cdef bint _is_question(bytes data, Py_ssize_t at) except *
@cython.locals(size=cython.Py_ssize_t, first=cython.int, length=cython.int)
cpdef int protocol_of(int known, bytes data) except -1
@cython.locals(length=cython.int, high=cython.int)
cdef bint _is_startup(bytes data) except *
@cython.locals(size=cython.Py_ssize_t, at=cython.Py_ssize_t, length=cython.Py_ssize_t)
cdef bint _is_command(bytes data) except *
cpdef int settle(int protocol, int kind) noexcept
cpdef int settle_greeting(int kind) noexcept
