# SPDX-License-Identifier: MIT
# Removes what the last installation from a build put in place, which MANIFEST lists, and the folders
# of this project that are empty then. As for the installation, DESTDIR stands before the paths.
if(NOT EXISTS "${MANIFEST}")
  message(FATAL_ERROR "nothing was installed from this build: there is no ${MANIFEST}")
endif()
file(STRINGS "${MANIFEST}" _files)
foreach(_file IN LISTS _files)
  set(_path "$ENV{DESTDIR}${_file}")
  message(STATUS "Removing: ${_path}")
  file(REMOVE "${_path}")
  get_filename_component(_folder "${_path}" DIRECTORY)
  file(GLOB _left "${_folder}/*")
  if(_folder MATCHES "/zqcow2$" AND NOT _left)
    file(REMOVE_RECURSE "${_folder}")
  endif()
endforeach()
