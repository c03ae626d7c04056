# What CI runs.
check:
    .ci/run

# All tests.
test:
    .ci/test
