-- Makes wrk send so many requests and no more, each with a path of its own: wrk -s wrk_count.lua … -- PREFIX FILE COUNT
-- One thread (-t1): each thread of wrk has its own state.
local prefix, file, count
-- One less: wrk looks at a first request before it sends any.
local allowed, sent, answered = 0, -1, 0

function init(arguments)
  prefix, file, count = arguments[1], arguments[2], tonumber(arguments[3])
end

-- Called before each request: past the count a connection waits for longer than the run lasts.
function delay()
  allowed = allowed + 1
  if allowed > count then return 3600000 end
  return 0
end

function request()
  sent = sent + 1
  return wrk.format("GET", prefix .. sent .. "/" .. file)
end

function response()
  answered = answered + 1
  if answered == count then wrk.thread:stop() end
end
