local health = {status = "Progressing", message = "waits for the operator"}
local status = obj.status
if status == nil or status.active == nil or status.active == "" then
  return health
end
if status.mode == "Frozen" then
  health.message = "writes are frozen"
  if status.lockedBy ~= nil then
    health.message = health.message .. " by " .. status.lockedBy.name
  end
  return health
end
health.status = "Healthy"
health.message = status.active .. " serves"
return health
