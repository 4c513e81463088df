-- wrk script: payments at the sandbox, each with its own idempotency key. TOKEN comes from the environment.
local number, thread_number, threads = 0, 0, 0
local body = '{"transaction_amount":100.5,"payment_method_id":"rapipago","description":"Blue shirt","payer":{"email":"buyer@example.com"},"metadata":{"order":"12345"}}'

function setup(thread)
  thread:set("thread_number", threads)
  threads = threads + 1
end

function request()
  number = number + 1
  return wrk.format("POST", "/v1/payments", {
    ["Authorization"] = "Bearer " .. os.getenv("TOKEN"),
    ["Content-Type"] = "application/json",
    ["X-Idempotency-Key"] = thread_number .. "-" .. number,
  }, body)
end
