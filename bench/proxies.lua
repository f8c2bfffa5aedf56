-- Counts every answer that is not exactly status 200 with the expected body, the one argument after `--`.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  expected = args[1]
  answered = 0
  wrong = 0
end

function response(status, headers, body)
  answered = answered + 1
  if status ~= 200 or body ~= expected then
    wrong = wrong + 1
  end
end

function done(summary, latency, requests)
  local all, bad = 0, 0
  for _, thread in ipairs(threads) do
    all = all + thread:get("answered")
    bad = bad + thread:get("wrong")
  end
  local errors = summary.errors
  io.write(string.format(
    'WRK {"answered": %d, "wrong": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
    all, bad, errors.connect, errors.read, errors.write, errors.timeout))
end
