# What CI runs.
check:
    .ci/run

# All tests.
test:
    .ci/test

# A Debian package and a source archive, in target/package/dist.
package:
    packaging/build
    packaging/check
