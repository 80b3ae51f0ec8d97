local health = {status = "Progressing", message = "waits for the operator"}
local status = obj.status or {}
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Stalled" and condition.status == "True" then
    health.status = "Degraded"
    health.message = condition.reason
    if condition.message ~= nil and condition.message ~= "" then
      health.message = health.message .. ": " .. condition.message
    end
    return health
  end
end
if status.active == nil or status.active == "" then
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
