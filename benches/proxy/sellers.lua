-- wrk script: GETs of one payment, each for a seller drawn at random. SELLERS and KEY come from the environment.
-- Without SELLERS the path is the one of the bare upstream.
local sellers = tonumber(os.getenv("SELLERS") or "0")
local headers = { ["Authorization"] = "Bearer " .. (os.getenv("KEY") or "none") }
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(_)
  math.randomseed(4711 + number)
end

function request()
  local prefix = ""
  if sellers > 0 then
    prefix = "/proxy/seller-" .. math.random(sellers)
  end
  return wrk.format("GET", prefix .. "/v1/payments/20359978", headers)
end
