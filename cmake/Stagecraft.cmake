# Two helpers keep every folder's CMakeLists.txt to a list of sources and libraries.
include(GNUInstallDirs)

add_library(stagecraft_options INTERFACE)
target_compile_features(stagecraft_options INTERFACE cxx_std_20)
target_include_directories(stagecraft_options INTERFACE ${PROJECT_SOURCE_DIR})
set(warnings -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
    -Wno-missing-field-initializers  # fields have defaults
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)  # GCC 12 warns about std::string (bug 105329)
target_compile_options(stagecraft_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${warnings}>"
                       $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>)
# Sources that compile as one see each other's file-local names.
if(CMAKE_UNITY_BUILD)
  target_compile_options(stagecraft_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-shadow>
                         $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage>)
endif()
if(STAGECRAFT_WERROR)
  target_compile_options(stagecraft_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>
                         $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()
if(STAGECRAFT_SANITIZE)
  target_compile_options(stagecraft_options INTERFACE -fsanitize=${STAGECRAFT_SANITIZE} -fno-omit-frame-pointer
                                                     -fno-sanitize-recover=all)
  target_link_options(stagecraft_options INTERFACE -fsanitize=${STAGECRAFT_SANITIZE})
  # GCC's flow analysis loses track in instrumented code and blames Boost.
  target_compile_options(stagecraft_options INTERFACE
                         $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-uninitialized -Wno-maybe-uninitialized>)
endif()

# stagecraft_library(models SOURCES a.cpp ... PUBLIC lib ... PRIVATE lib ...): the target stagecraft::models.
function(stagecraft_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(stagecraft_${name} STATIC ${ARG_SOURCES})
  add_library(stagecraft::${name} ALIAS stagecraft_${name})
  target_link_libraries(stagecraft_${name} PUBLIC stagecraft_options ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
endfunction()

# stagecraft_test(models SOURCES a_test.cpp ... LIBRARIES lib ... LABELS unit): one GoogleTest binary, a CTest test a case.
function(stagecraft_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES;LABELS" ${ARGN})
  add_executable(test_${name} ${ARG_SOURCES})
  target_link_libraries(test_${name} PRIVATE ${ARG_LIBRARIES} GTest::gmock GTest::gtest_main)
  gtest_discover_tests(test_${name} TEST_PREFIX ${name}. DISCOVERY_MODE PRE_TEST NO_PRETTY_VALUES PROPERTIES LABELS "${ARG_LABELS}"
                       TIMEOUT 300)
endfunction()

# stagecraft_fuzz(plan SOURCES fuzz_plan.cpp LIBRARIES lib ...): a libFuzzer binary and a short run of it over its corpus.
function(stagecraft_fuzz name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES" ${ARGN})
  add_executable(fuzz_${name} ${ARG_SOURCES})
  target_compile_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  target_link_libraries(fuzz_${name} PRIVATE ${ARG_LIBRARIES})
endfunction()
