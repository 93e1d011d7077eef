# Which folder may include which (CONTRIBUTING.md, "Layers"), and which third-party headers stay private to a folder.
# Run as a test: cmake -D ROOT=<repository> -P layering.cmake
cmake_minimum_required(VERSION 3.25)

set(models_may models)
set(kernels_may kernels)
set(sim_may sim models)
set(planner_may planner sim models)
set(runtime_may runtime models kernels)
set(reports_may reports models)
set(cli_may cli models sim planner kernels runtime reports)

# header prefix -> folders that may include it
set(private_simgrid sim)
set(private_CLI cli)
set(private_mpi.h runtime)
set(private_cblas.h kernels bench)
set(private_boost models planner)

set(faults "")
foreach(folder models kernels sim planner runtime reports cli)
  file(GLOB_RECURSE files RELATIVE ${ROOT} ${ROOT}/${folder}/*.hpp ${ROOT}/${folder}/*.cpp ${ROOT}/${folder}/*.cu
       ${ROOT}/${folder}/*.cuh)
  foreach(file ${files})
    file(STRINGS ${ROOT}/${file} includes REGEX "^#include [<\"]")
    foreach(line ${includes})
      string(REGEX MATCH "[<\"]([^/>\"]+)" unused "${line}")
      set(top ${CMAKE_MATCH_1})
      if(line MATCHES "\"" AND NOT top IN_LIST ${folder}_may)
        list(APPEND faults "${file}: ${folder}/ may not include ${line}")
      endif()
      if(DEFINED private_${top} AND NOT folder IN_LIST private_${top})
        list(APPEND faults "${file}: only ${private_${top}}/ may include ${line}")
      endif()
    endforeach()
  endforeach()
endforeach()

if(faults)
  list(JOIN faults "\n  " text)
  message(FATAL_ERROR "layers are crossed:\n  ${text}")
endif()
