-- Every index is written by every operation. What is open is found by "finished = 0", a short list; from there on nothing needs an index.
DROP INDEX operations_state{{on operations}};
DROP INDEX operations_owner{{on operations}};
DROP INDEX operation_steps_operation{{on operation_steps}};
CREATE INDEX operation_steps_of ON operation_steps (operation);
