-- For wrk: no two requests ask for the same path.
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("serial", threads * 100000)
end

function request()
  serial = serial + 1
  return wrk.format("GET", "/rows/" .. serial % 100000 * 2 + math.floor(serial / 100000))
end
