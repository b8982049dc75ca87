@echo off
rem Starts ExplainMyXray through WSL or, where that is missing, Docker Compose. Options go to run.sh under WSL.
setlocal
cd /d "%~dp0"

where wsl >nul 2>nul || goto docker
wsl --exec true >nul 2>nul || goto docker
wsl --exec bash ./run.sh %*
exit /b %errorlevel%

:docker
where docker >nul 2>nul || goto nothing
docker compose version >nul 2>nul || goto nothing
if not exist .env (
    echo Docker Compose needs a file .env with your own secrets: copy .env.example to .env and fill it in.
    exit /b 1
)
docker compose up --build
exit /b %errorlevel%

:nothing
echo ExplainMyXray needs WSL or Docker on Windows, as there is no Redis for Windows.
echo   WSL:    open PowerShell as administrator, run   wsl --install   , restart, then start run.bat again.
echo   Docker: install Docker Desktop from https://www.docker.com/products/docker-desktop/
exit /b 1
