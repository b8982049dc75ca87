"""The operations on single jobs: submit, start, finish, deliver, erase."""
