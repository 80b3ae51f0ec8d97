-- A backend that nobody has asked yet holds nothing up.
local health = {status = "Healthy", message = "not asked yet"}
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
if status.reachable == nil then
  return health
end
if not status.reachable then
  health.status = "Degraded"
  health.message = "not reachable"
  return health
end
health.message = "reachable"
if status.serverVersion ~= nil and status.serverVersion ~= "" then
  health.message = "reachable, " .. status.serverVersion
end
return health
