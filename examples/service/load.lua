-- Load for the service, by wrk: requests of ROWS rows of WIDTH numbers each.
--
--     wrk -t1 -c16 -d10s --latency -s load.lua http://127.0.0.1:8000/predict -- WIDTH ROWS

function init(args)
   local width, count = tonumber(args[1]), tonumber(args[2] or 1)
   math.randomseed(1)
   local rows = {}
   for i = 1, count do
      local row = {}
      for j = 1, width do row[j] = math.random(0, 16) end
      rows[i] = "[" .. table.concat(row, ",") .. "]"
   end
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/json"
   wrk.body = "[" .. table.concat(rows, ",") .. "]"
end
