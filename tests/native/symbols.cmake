# A kernel object may define one symbol, its table. Anything more, a std template say, the linker would merge with the
# same function compiled for another instruction set, and a processor without that set would meet its instructions.
# Nor may it need C++ functions of other objects; those of C (memcpy, log) come compiled from the system.
cmake_policy(VERSION 3.25)
list(LENGTH OBJECTS count)
if(count LESS 2)
  message(FATAL_ERROR "no kernel objects given")
endif()
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --extern-only --defined-only --format=posix ${object}
    OUTPUT_VARIABLE defined COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+\n" lines "${defined}")
  list(LENGTH lines lines_count)
  if(NOT lines_count EQUAL 1 OR NOT lines MATCHES "(table|program)_(float|double|low_precision)")
    message(FATAL_ERROR "${object} should define its table alone, but has:\n${defined}")
  endif()
  execute_process(COMMAND ${NM} --undefined-only --format=posix ${object}
    OUTPUT_VARIABLE wanted COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "_Z[^\n]+\n" foreign "${wanted}")
  if(foreign)
    message(FATAL_ERROR "${object} needs what other objects define:\n${foreign}")
  endif()
endforeach()
message(STATUS "${count} kernel objects define their tables alone")
