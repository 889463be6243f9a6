-- wrk's part: posts the file named by BENCH_BODY; at the end one line of figures, times in seconds and milliseconds.
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*all")
file:close()

function done(summary, latency)
  local failures = 0
  for _, count in pairs(summary.errors) do
    failures = failures + count
  end
  print(table.concat({ "figures", summary.requests, summary.duration / 1e6, failures,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3 }, " "))
end
